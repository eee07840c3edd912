"""Accuracy on fixed episodes, with its confidence intervals.

In short::

    result = cxgrad_jax.evaluate(learner, params, sampler)
    print(result)                            # accuracy 0.4763 ± 0.0089 (95 % interval over 600 episodes)
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cxgrad_jax import batching, parallel
from cxgrad_jax.arguments import check_learner, check_params, check_sampler, check_whole
from cxgrad_jax.episodes import Episode, Sampler
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._checked import check_way
from cxgrad_jax.platforms import on_mesh

EPISODES_AT_ONCE = 20  # drawn on the host and sent to the devices together
KEPT = 16  # the programs of at most this many learners stay in memory


class Evaluation(NamedTuple):
    """The accuracy of a learner on some episodes. Every number is in [0, 1].

    Attributes:
      accuracy: the mean over the episodes.
      ci95: the half-width of the 95 % interval of the mean over episodes (``ci95_tasks``). It is 0 for one episode.
      ci95_pooled: the half-width of the binomial interval over all predictions (``ci95_pooled``), which the CxGrad
        paper prints.
      accuracies: float64 ``[episodes]``.
    """

    accuracy: float
    ci95: float
    ci95_pooled: float
    accuracies: np.ndarray

    def __repr__(self) -> str:
        number = len(self.accuracies)
        if number == 1:
            return f"accuracy {self.accuracy:.4f} (of one episode, so without an interval)"
        return f"accuracy {self.accuracy:.4f} ± {self.ci95:.4f} (95 % interval over {number} episodes)"


def evaluate(
    learner: MetaLearner, params: Any, sampler: Sampler, *, episodes: int = 600, progress: bool = False
) -> Evaluation:
    """Adapts to the support set of each of the episodes 0 to ``episodes - 1``, and predicts its query set.

    All devices share the episodes. They always work on batches of one size, so that the result of an episode does not
    depend on the number of episodes.

    Args:
      learner: the learner to evaluate.
      params: its meta-parameters.
      sampler: the sampler of the episodes, made from a test split.
      episodes: the number of episodes.
      progress: whether to show a progress bar.

    Raises:
      UserError: an argument has the wrong type, ``episodes`` is not positive, the episodes have more classes than the
        model, or the learner's ``adapt`` or ``predict`` refuses an episode.
    """
    check_evaluated(learner, params, sampler, episodes)
    mesh = parallel.task_mesh()
    title = "evaluation" if progress else ""
    logits, labels = over_episodes(query_logits_and_labels(learner), sampler.batch, episodes, mesh, title)(params)
    return evaluation_of(logits, labels)


def check_evaluated(learner: Any, params: Any, sampler: Any, episodes: Any) -> None:
    """Refuses what ``evaluate`` cannot take as a learner, its meta-parameters, a sampler and a number of episodes."""
    check_learner(learner)
    check_sampler(sampler)
    check_whole("episodes", episodes)
    check_params(params)
    check_way(learner, sampler.shape.way, sampler.store.images)


def evaluation_of(logits: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Evaluates query logits ``[episodes, N, way]`` with labels ``[episodes, N]``, or ``[N]`` for all episodes."""
    return evaluation_of_accuracies(episode_accuracies(logits, labels), labels.shape[-1])


def evaluation_of_accuracies(accuracies: np.ndarray, num_queries: int) -> Evaluation:
    """Makes the evaluation of accuracies ``[episodes]``, each over ``num_queries`` query images."""
    accuracy = float(accuracies.mean())
    pooled = ci95_pooled(accuracy, accuracies.size * num_queries)
    return Evaluation(accuracy, ci95_tasks(accuracies), pooled, accuracies)


@functools.lru_cache(KEPT)  # validation and test share one compiled program
def query_logits(learner: MetaLearner) -> Callable[[Any, Episode], jax.Array]:
    """The function ``(params, episode) -> query logits [way*query, way]`` after adaptation."""

    def logits_of(params, episode):
        adapted = learner.adapt(params, episode.support_images, episode.support_labels)
        return learner.predict(params, adapted, episode.query_images)

    return logits_of


@functools.lru_cache(KEPT)
def query_logits_and_labels(learner: MetaLearner) -> Callable[[Any, Episode], tuple[jax.Array, jax.Array]]:
    """``query_logits`` beside the episode's own query labels, int32 ``[way*query]``."""
    logits_of = query_logits(learner)
    return lambda params, episode: (logits_of(params, episode), episode.query_labels)


@functools.lru_cache(KEPT)
def compile_over_tasks(function: Callable[..., Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """Compiles ``(params, batch) -> results``, which applies ``function(params, task)`` to each task of the batch.

    The batch lies along the mesh's task axis.
    """

    def results_of(params, batch):
        params = parallel.vary(params)
        tasks = jax.tree.leaves(batch)[0].shape[0]
        return batching.map_tasks(lambda one: function(params, one), batch, batching.vectorised_tasks(tasks))

    spec = P(parallel.TASK_AXIS)
    sharded = jax.shard_map(results_of, mesh=mesh, in_specs=(P(), spec), out_specs=spec)
    return parallel.compiled_for(mesh, sharded)


def over_episodes(
    function: Callable[[Any, Any], Any],
    draw: Callable[[np.ndarray], Any],
    num_episodes: int,
    mesh: Mesh,
    title: str = "",
) -> Callable[..., Any]:
    """Makes a function that applies ``function`` to the fixed episodes 0 to ``num_episodes - 1``.

    Args:
      function: ``(params, episode) -> pytree of arrays``. The same object is compiled once.
      draw: ``indices [n] -> episodes``, such as ``Sampler.batch``.
      num_episodes: the number of episodes.
      mesh: the mesh to work on.
      title: the title of a progress bar. If it is empty, there is none.

    Returns:
      ``(params, poll=None) -> pytree of NumPy arrays [num_episodes, ...]``. ``poll()`` is called after each batch of
      episodes, equally often in every process. It may raise to end the work.
    """
    compiled = compile_over_tasks(function, mesh)
    at_once = -(-EPISODES_AT_ONCE // mesh.size) * mesh.size
    per_process = at_once // jax.process_count()
    first_here = jax.process_index() * per_process

    def evaluator(params, poll=None):
        from tqdm.auto import tqdm

        if jax.process_count() == 1:  # several processes give arrays that lie on their mesh already
            params = parallel.put(mesh, params)
        batches = []
        hidden = not title or jax.process_index() != 0
        for first in tqdm(range(0, num_episodes, at_once), desc=title, unit_scale=at_once, unit="ep", disable=hidden):
            # Further episodes fill the last batch up. They are cut off below.
            episodes = draw(np.arange(first + first_here, first + first_here + per_process))
            with on_mesh(mesh):
                batch = compiled(params, parallel.put(mesh, episodes, P(parallel.TASK_AXIS)))
            batches.append(parallel.fetch(batch) if title else batch)
            if poll:
                jax.block_until_ready(batches[-2:-1])  # at most one batch is ahead of the poll
                poll()
        return jax.tree.map(lambda *x: np.concatenate(x)[:num_episodes], *map(parallel.fetch, batches))

    return evaluator


def episode_accuracies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy of each episode, ``[episodes]`` in [0, 1], from logits ``[episodes, N, way]`` and labels ``[N]``
    or ``[episodes, N]``.

    A prediction with a logit that is not a number is wrong.
    """
    right = (np.argmax(logits, axis=-1) == labels) & ~np.isnan(logits).any(axis=-1)
    return np.mean(right, axis=-1)


def ci95_tasks(accuracies: Sequence[float] | np.ndarray) -> float:
    """Half-width of the 95 % interval of the mean over episodes: ``1.96 * std / sqrt(episodes)``."""
    return float(1.96 * np.std(accuracies) / np.sqrt(len(accuracies)))


def ci95_pooled(accuracy: float, num_predictions: int) -> float:
    """Half-width of the binomial interval over all predictions: ``1.96 * sqrt(p (1 - p) / n)``.

    The CxGrad paper prints this interval. It leaves out the spread between episodes, so it is smaller than
    ``ci95_tasks``.
    """
    return float(1.96 * np.sqrt(accuracy * (1 - accuracy) / num_predictions))


def paired(ours: Sequence[float] | np.ndarray, first: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Compares accuracies ``[episodes]`` on the same episodes.

    Returns:
      The mean ``"difference"``, its 95 % interval ``"difference_ci95"`` as ``ci95_tasks`` takes it, and the two-sided
      ``"p_value"`` of a paired t-test. For one episode, interval and p-value are None. The interval is a normal one, so
      for few episodes it is narrower than the t-test's.
    """
    from scipy import stats  # slow to import, and seldom needed

    difference = np.asarray(ours) - np.asarray(first)
    if len(difference) == 1:
        return {"difference": float(difference[0]), "difference_ci95": None, "p_value": None}
    p_value = 1.0 if not np.any(difference) else float(stats.ttest_rel(ours, first).pvalue)
    return {"difference": float(difference.mean()), "difference_ci95": ci95_tasks(difference), "p_value": p_value}


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits ``[episodes, N, way]`` and labels ``[N]``."""
    return float(-np.mean(np.take_along_axis(log_softmax(logits), labels[None, :, None], axis=-1)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
