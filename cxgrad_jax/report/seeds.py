"""Accuracies over several training seeds: their mean, its intervals, and differences on the same test episodes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cxgrad_jax.evaluation import paired


class Summary(NamedTuple):
    """The accuracy of runs that differ in their seed. Every number is a share in [0, 1].

    Attributes:
      accuracy: the mean over the seeds of the test accuracy.
      std_seeds: the standard deviation over the seeds, divided by n - 1. It is None for one seed.
      ci95_seeds: the half-width of the 95 % t-interval of the mean over seeds. It is None for one seed.
      ci95_tasks: the mean over the seeds of the half-width of the 95 % interval over test episodes. It is None for one
        episode.
      ci95_pooled: the mean over the seeds of the half-width of the binomial interval over all predictions, which the
        CxGrad paper prints.
    """

    accuracy: float
    std_seeds: float | None
    ci95_seeds: float | None
    ci95_tasks: float | None
    ci95_pooled: float

    @property
    def interval(self) -> float | None:
        """The interval to print if there is room for one: over seeds, or for a single seed over tasks."""
        return self.ci95_tasks if self.ci95_seeds is None else self.ci95_seeds


def summary(results: Sequence[dict[str, Any]]) -> Summary:
    """Sums up the results of some seeds (the contents of their ``results.json``)."""
    accuracies = [each["test_accuracy"] for each in results]
    mean = {name: float(np.mean([each[name] for each in results])) for name in ("test_ci95_tasks", "test_ci95_pooled")}
    if len(results) == 1:
        std = interval = None
    else:
        std = float(np.std(accuracies, ddof=1))
        interval = _t_quantile(len(accuracies) - 1) * std / len(accuracies) ** 0.5
    over_tasks = mean["test_ci95_tasks"] if all(each["num_tasks"] > 1 for each in results) else None
    return Summary(float(np.mean(accuracies)), std, interval, over_tasks, mean["test_ci95_pooled"])


def paired_over_seeds(ours: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    """Compares accuracies ``[seeds, episodes]`` on the same episodes, with seeds and episodes as random factors.

    Episodes are crossed with seeds: every seed has the same ones. The variance of the mean difference is taken as
    (MS_seeds + MS_episodes) / (seeds * episodes), the mean squares of the two-way layout, with Satterthwaite's degrees
    of freedom. It is a little too large, by the variance that neither factor explains. An interval that treats all
    seeds * episodes differences as independent would be far too small. In a simulation with three seeds it covered 55 %
    of the time, and this one 93 to 98 % (``tests/report/test_seeds.py``).

    Returns:
      ``"difference"``, ``"difference_ci95"``, and the two-sided ``"p_value"``. For one seed it is the result of
      ``evaluation.paired``. For one episode the interval is over the seeds alone.
    """
    difference = np.asarray(ours, float) - np.asarray(first, float)
    seeds, episodes = difference.shape
    if seeds == 1:
        return paired(ours[0], first[0])
    if not np.any(difference):
        return {"difference": 0.0, "difference_ci95": 0.0, "p_value": 1.0}
    from scipy import stats  # slow to import

    mean, seed_means, episode_means = difference.mean(), difference.mean(axis=1), difference.mean(axis=0)
    freedom = np.array([seeds - 1, max(episodes - 1, 1)])
    over_episodes = np.var(episode_means, ddof=1) if episodes > 1 else 0.0
    squares = np.array([episodes * np.var(seed_means, ddof=1), seeds * over_episodes])
    error = np.sqrt(squares.sum() / (seeds * episodes))
    if not error:
        return {"difference": float(mean), "difference_ci95": 0.0, "p_value": 0.0}
    degrees = squares.sum() ** 2 / np.sum(squares**2 / freedom)
    return {
        "difference": float(mean),
        "difference_ci95": float(stats.t.ppf(0.975, degrees) * error),
        "p_value": float(2 * stats.t.sf(abs(mean) / error, degrees)),
    }


def _t_quantile(degrees: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.975, degrees))
