"""Means and intervals over seeds, and differences on the same episodes."""

import numpy as np
import pytest
import scipy.stats

from cxgrad_jax.evaluation import paired
from cxgrad_jax.report.seeds import paired_over_seeds, summary


def results(accuracy, tasks=0.02, pooled=0.01, num_tasks=600):
    return {"test_accuracy": accuracy, "test_ci95_tasks": tasks, "test_ci95_pooled": pooled, "num_tasks": num_tasks}


def test_summary_of_three_seeds():
    found = summary([results(0.50, 0.01), results(0.52, 0.02), results(0.54, 0.03)])
    assert found.accuracy == pytest.approx(0.52) and found.std_seeds == pytest.approx(0.02)
    assert found.ci95_seeds == pytest.approx(4.302653 * 0.02 / np.sqrt(3))  # t of 2 degrees of freedom
    assert found.ci95_tasks == pytest.approx(0.02) and found.ci95_pooled == 0.01
    assert found.interval == found.ci95_seeds


def test_summary_of_one_seed_has_no_spread():
    found = summary([results(0.5)])
    assert found == (0.5, None, None, 0.02, 0.01) and found.interval == 0.02


def test_one_episode_has_no_interval_over_episodes():
    assert summary([results(0.5, tasks=0.0, num_tasks=1)]).interval is None
    alone = paired_over_seeds(np.array([[0.5]]), np.array([[0.25]]))
    assert alone == {"difference": 0.25, "difference_ci95": None, "p_value": None}
    ours, first = np.array([[0.5], [0.7], [0.4]]), np.array([[0.3], [0.4], [0.35]])
    found, test = paired_over_seeds(ours, first), scipy.stats.ttest_rel(ours[:, 0], first[:, 0])
    assert found["p_value"] == pytest.approx(test.pvalue)
    assert found["difference_ci95"] == pytest.approx(test.confidence_interval(0.95).high - found["difference"])


def test_one_seed_is_the_paired_comparison_over_episodes():
    ours, first = np.random.default_rng(0).uniform(size=(2, 1, 40))
    assert paired_over_seeds(ours, first) == paired(ours[0], first[0])


def test_equal_accuracies_do_not_differ():
    same = np.random.default_rng(0).uniform(size=(3, 20))
    assert paired_over_seeds(same, same) == {"difference": 0.0, "difference_ci95": 0.0, "p_value": 1.0}


def test_a_constant_difference_has_an_interval_of_zero():
    found = paired_over_seeds(np.full((2, 9), 0.75), np.full((2, 9), 0.5))
    assert found == {"difference": 0.25, "difference_ci95": 0.0, "p_value": 0.0}


def test_where_only_seeds_vary_it_is_the_t_test_over_seeds():
    by_seed = np.array([0.01, 0.03, 0.08])
    found = paired_over_seeds(np.tile(by_seed[:, None], (1, 50)), np.zeros((3, 50)))
    expected = scipy.stats.ttest_1samp(by_seed, 0.0)
    assert found["difference"] == pytest.approx(0.04)
    assert found["p_value"] == pytest.approx(expected.pvalue)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("seeds", "spread_seeds", "spread_episodes"), [(3, 0.02, 0.05), (3, 0.0, 0.05), (3, 0.0, 0.0), (5, 0.05, 0.0)]
)
def test_the_interval_covers_the_true_difference_as_often_as_it_says(seeds, spread_seeds, spread_episodes):
    rng, covered, trials = np.random.default_rng(0), 0, 600
    for _ in range(trials):
        difference = (
            0.03
            + spread_seeds * rng.normal(size=(seeds, 1))
            + spread_episodes * rng.normal(size=60)
            + 0.05 * rng.normal(size=(seeds, 60))
        )
        found = paired_over_seeds(difference, np.zeros_like(difference))
        covered += abs(found["difference"] - 0.03) <= found["difference_ci95"]
    # In 4,000 trials 0.930, 0.968, 0.986 and 0.950; all differences as independent would give 0.552 in the first case.
    assert covered / trials > 0.90
