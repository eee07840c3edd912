"""Validation and test: fixed episodes, an ensemble of the best checkpoints, both confidence intervals."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from cxgrad_jax import __version__, parallel, runtime
from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.episodes import Episode, HostDrawer
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.metrics import ci95_pooled, ci95_tasks, episode_accuracies, params_sha256, write_json
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.state import TrainState, abstract_state

EPISODES_AT_ONCE = 20  # drawn on the host and sent to the devices together


@functools.cache  # validation and test share one compiled program
def query_logits(learner: MetaLearner) -> Callable[[Any, Episode], jax.Array]:
    """The function ``(params, episode) -> query logits [way*query, way]`` after adaptation."""

    def logits_of(params, episode):
        task = learner.adapt(params, episode.support_images, episode.support_labels)
        return learner.predict(params, task, episode.query_images)

    return logits_of


@functools.cache
def compile_over_tasks(function: Callable, mesh: Mesh) -> Callable[[Any, Any], Any]:
    """Compiles ``(params, batch) -> results`` of ``function(params, one of the batch)``, for a batch that lies along
    the mesh's task axis."""

    def results_of(params, batch):
        params = parallel.vary(params)
        tasks = jax.tree.leaves(batch)[0].shape[0]
        return parallel.map_tasks(lambda one: function(params, one), batch, parallel.default_chunk(tasks))

    spec = P(parallel.TASK_AXIS)
    sharded = jax.shard_map(results_of, mesh=mesh, in_specs=(P(), spec), out_specs=spec)
    return jax.jit(sharded, compiler_options=runtime.compiler_options(mesh.size))


def over_episodes(
    function: Callable, draw: Callable[[np.ndarray], Any], num_episodes: int, mesh: Mesh, title: str = ""
) -> Callable[[Any], Any]:
    """Makes the function ``params -> results`` of the fixed episodes 0 .. num_episodes-1.

    Args:
      function: ``(params, episode) -> `` a pytree of arrays; the same object is compiled once.
      draw: ``indices [n] -> episodes``, a ``HostDrawer`` or what is made of some.
      num_episodes: how many.
      mesh: to work on.
      title: of a progress bar; empty: none.

    Returns:
      ``params -> `` that pytree of numpy arrays ``[num_episodes, ...]``.
    """
    compiled = compile_over_tasks(function, mesh)
    at_once = -(-EPISODES_AT_ONCE // mesh.size) * mesh.size
    per_process = at_once // jax.process_count()
    first_here = jax.process_index() * per_process

    def evaluator(params):
        batches = []
        hidden = not title or jax.process_index() != 0
        for first in tqdm(range(0, num_episodes, at_once), desc=title, unit_scale=at_once, unit="ep", disable=hidden):
            # The last batch is filled up with further episodes, which are cut off below.
            episodes = draw(np.arange(first + first_here, first + first_here + per_process))
            batch = compiled(params, parallel.put(mesh, episodes, P(parallel.TASK_AXIS)))
            batches.append(parallel.fetch(batch) if title else batch)
        return jax.tree.map(lambda *x: np.concatenate(x)[:num_episodes], *map(parallel.fetch, batches))

    return evaluator


def test(
    config: ConfigDict, learner: MetaLearner, store: ImageStore, mesh: Mesh, checkpoints: Checkpoints, state: TrainState
) -> dict[str, Any]:
    """The paper's test protocol: logits averaged over the checkpoints best in validation, on fixed test episodes.

    Args:
      config: of the run; ``config.evaluation`` says on what data and how.
      learner: of the run.
      store: the test images.
      mesh: to evaluate on.
      checkpoints: of the run.
      state: the final state.

    Returns:
      The content of ``results.json``.

    Raises:
      UserError: no checkpoint was validated.
    """
    shape = configuration.episode_shape(config)
    labels, num_episodes = shape.labels()[1], config.evaluation.episodes
    drawer = HostDrawer(store, shape, config.seed, "test")
    evaluator = over_episodes(query_logits(learner), drawer, num_episodes, mesh)
    chosen = checkpoints.best()[: config.evaluation.ensemble]
    if not chosen:
        raise UserError(f"{checkpoints.directory} has no validated checkpoint; train for at least one epoch first")
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    logits = []
    for iteration in tqdm(chosen, desc="test", unit="checkpoint", disable=jax.process_index() != 0):
        logits.append(evaluator(checkpoints.restore(iteration, like).params))
    ensemble = episode_accuracies(np.mean(logits, axis=0), labels)
    accuracy = float(ensemble.mean())
    return {
        "test_accuracy": accuracy,
        "test_ci95_tasks": ci95_tasks(ensemble),
        "test_ci95_pooled": ci95_pooled(accuracy, num_episodes * len(labels)),
        "num_tasks": num_episodes,
        "ensemble_size": len(chosen),
        "ensemble_iterations": chosen,
        "episode_accuracies": [round(float(value), 6) for value in ensemble],
        "single_model_test_accuracy": float(episode_accuracies(logits[0], labels).mean()),
        "test_data": config.evaluation.data or config.data.name,
        "batch_norm": "statistics of the current batch, in training and test (query images jointly: transductive)"
        if config.model.norm == "batch"
        else f"none ({config.model.norm} norm, statistics of each image alone)",
        "iterations": int(state.iteration),
        "params_sha256": params_sha256(jax.device_get(state.params)),
        "versions": {"jax": jax.__version__, "flax": flax.__version__, "cxgrad_jax": __version__},
        "config": configuration.to_json(config),
    }


def open_checkpoints(config: ConfigDict, workdir: Path) -> Checkpoints:
    """The checkpoints of a run, to read.

    Raises:
      UserError: there is none.
    """
    checkpoints = Checkpoints(workdir, config.evaluation.ensemble, read_only=True)
    if not checkpoints.all():
        raise UserError(f"{checkpoints.directory} has no checkpoint; train with --mode=train first")
    return checkpoints


def evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Tests a run with the checkpoints at hand and writes the results.

    Args:
      config: the run's own, except for ``config.evaluation``, ``config.parallel`` and where the data lies.
      workdir: of the run. Receives ``results.json`` where the test data are those trained on, otherwise
        ``results_DATASET.json``.

    Returns:
      The content of the file.

    Raises:
      UserError: no run there or one of another configuration, data that cannot be used, or no validated checkpoint.
    """
    configuration.check_same_run(config, workdir, "evaluation.", "parallel.")
    test_data = config.evaluation.data or config.data.name
    store = configuration.load_stores(config, ("test",), test_data)["test"]
    mesh = parallel.task_mesh(configuration.num_devices(config))
    learner = configuration.build_learner(config)
    checkpoints = open_checkpoints(config, workdir)
    optimiser = configuration.build_optimiser(config)
    like = abstract_state(learner, optimiser, np.asarray(store.images[:2]), mesh)
    state = checkpoints.restore(checkpoints.all()[-1], like)
    results = test(config, learner, store, mesh, checkpoints, state)
    checkpoints.close()
    if jax.process_index() == 0:
        name = "results.json" if test_data == config.data.name else f"results_{test_data}.json"
        write_json(workdir / name, results)
    return results
