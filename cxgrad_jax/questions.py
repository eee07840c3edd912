"""Further questions to a trained learner, asked on fixed episodes.

    for step, result in enumerate(cxgrad_jax.evaluate_by_step(learner, params, sampler)):
        print(step, result)

The command line asks them with ``--mode=evaluate --question=inner_steps`` (or ``parts``, ``permutations``).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cxgrad_jax import analysis, parallel
from cxgrad_jax.episodes import Episode, Sampler
from cxgrad_jax.evaluation import KEPT, Evaluation, check_evaluated, evaluation_of_accuracies, over_episodes
from cxgrad_jax.learners import MetaLearner, accuracy


class Permutations(NamedTuple):
    """Accuracy over all orders of an episode's classes.

    Attributes:
      mean: the evaluation of the mean over all orders.
      best: the evaluation of the best order of each episode.
      worst: the evaluation of the worst order of each episode.
      accuracies: float64 ``[episodes, way!]`` in [0, 1]. The orders are those of ``analysis.permutations``.
    """

    mean: Evaluation
    best: Evaluation
    worst: Evaluation
    accuracies: np.ndarray


def evaluate_by_step(
    learner: MetaLearner, params: Any, sampler: Sampler, *, episodes: int = 600, progress: bool = False
) -> list[Evaluation]:
    """Accuracy after each number of inner steps, from none to all of the learner's (``analysis.logits_by_step``).

    For more steps than in training, give a learner with more: ``cx.learners.maml(model, num_steps=10)``. The arguments
    are those of ``evaluate``.

    Returns:
      The evaluation after each number of steps, ``num_steps + 1`` of them.

    Raises:
      UserError: the learner adapts no parameters, or ``evaluate`` raises it.
    """
    check_evaluated(learner, params, sampler, episodes)
    found = _accuracies(_by_step(learner), sampler, episodes, progress)(params)
    return [_evaluation(accuracies, sampler) for accuracies in found.T]


def evaluate_by_part(
    learner: MetaLearner, params: Any, sampler: Sampler, *, episodes: int = 600, progress: bool = False
) -> dict[str, Evaluation]:
    """Accuracy where only a part of what the learner adapts has adapted (``analysis.logits_by_part``).

    The arguments are those of ``evaluate``.

    Returns:
      The evaluation for each part: ``"none"``, the ``"head"``, the ``"body"`` and ``"all"``.

    Raises:
      UserError: the learner adapts no parameters, or ``evaluate`` raises it.
    """
    check_evaluated(learner, params, sampler, episodes)
    found = _accuracies(_by_part(learner), sampler, episodes, progress)(params)
    return {part: _evaluation(found[part], sampler) for part in analysis.PARTS}


def evaluate_permutations(
    learner: MetaLearner, params: Any, sampler: Sampler, *, episodes: int = 600, progress: bool = False
) -> Permutations:
    """Accuracy over all ``way!`` orders of the classes (``analysis.permuted_logits``).

    A 5-way episode is adapted to 120 times. A learner that treats the classes alike has the same accuracy for every
    order. The arguments are those of ``evaluate``.

    Raises:
      UserError: an episode has more than 6 classes, or ``evaluate`` raises it.
    """
    check_evaluated(learner, params, sampler, episodes)
    way = sampler.shape.way
    analysis.permutations(way)
    found = np.asarray(_accuracies(_permuted(learner, way), sampler, episodes, progress)(params), np.float64)
    mean, best, worst = (_evaluation(each, sampler) for each in (found.mean(1), found.max(1), found.min(1)))
    return Permutations(mean, best, worst, found)


@functools.lru_cache(KEPT)  # a question that is asked again is not compiled again
def _by_step(learner: MetaLearner) -> Callable[..., Any]:
    def measure(params: Any, episode: Episode) -> jax.Array:
        logits = analysis.logits_by_step(learner, params, episode)
        return jnp.stack([accuracy(step_logits, episode.query_labels) for step_logits in logits])

    return measure


@functools.lru_cache(KEPT)
def _by_part(learner: MetaLearner) -> Callable[..., Any]:
    def measure(params: Any, episode: Episode) -> dict[str, jax.Array]:
        logits = analysis.logits_by_part(learner, params, episode)
        return {part: accuracy(part_logits, episode.query_labels) for part, part_logits in logits.items()}

    return measure


@functools.lru_cache(KEPT)
def _permuted(learner: MetaLearner, way: int) -> Callable[..., Any]:
    def measure(params: Any, episode: Episode) -> jax.Array:
        logits = analysis.permuted_logits(learner, params, episode, way)
        return jax.vmap(lambda order_logits: accuracy(order_logits, episode.query_labels))(logits)

    return measure


def _accuracies(measure: Callable[..., Any], sampler: Sampler, episodes: int, progress: bool) -> Callable[[Any], Any]:
    return over_episodes(measure, sampler.batch, episodes, parallel.task_mesh(), "evaluation" if progress else "")


def _evaluation(accuracies: np.ndarray, sampler: Sampler) -> Evaluation:
    return evaluation_of_accuracies(np.asarray(accuracies, np.float64), len(sampler.shape.labels()[1]))
