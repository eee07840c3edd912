"""Meta-training: the outer loop, several iterations a dispatch, resumed exactly where it stopped."""

import fcntl
import math
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from cxgrad_jax import parallel, runtime
from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.episodes import Episode, HostDrawer, Shape, draw_on_device, largest_class
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.metrics import MetricsFile, ci95_tasks, episode_accuracies, mean_cross_entropy, write_json
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.state import TrainState, abstract_state, init_state
from cxgrad_jax.training.testing import over_episodes, query_logits, test


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""


def make_train_block(
    loss: Callable,
    optimiser: optax.GradientTransformation,
    draw: Callable[[Any, jax.Array], Episode],
    mesh: Mesh,
    source_spec: P,
    num_iterations: int,
    chunk: int,
    task_reduction: str,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles ``num_iterations`` outer iterations into one call, each device of the mesh working on its own tasks.

    Args:
      loss: ``MetaLearner.loss``.
      optimiser: of the outer loop.
      draw: ``(source, iteration) -> episodes`` of one device, inside the compiled program: from a whole store, or
        from the slice of already drawn episodes.
      mesh: with a task axis.
      source_spec: how the source lies on the mesh.
      num_iterations: outer iterations a call.
      chunk: tasks of a device vectorised at once.
      task_reduction: ``"mean"`` or ``"sum"`` of the gradients over tasks.

    Returns:
      ``(state, source) -> (state, metrics)``; metrics have a leading axis of iterations. The state is donated.
    """

    def iterate(source, state: TrainState, _):
        episodes, params = draw(source, state.iteration), parallel.vary(state.params)

        def loss_at_iteration(params, episode):
            return loss(params, episode, iteration=state.iteration)

        (value, metrics), gradients = parallel.mean_loss_and_gradients(loss_at_iteration, params, episodes, chunk)
        value, metrics, gradients = parallel.mean_over_devices((value, metrics, gradients))
        if task_reduction == "sum":
            tasks = jax.tree.leaves(episodes)[0].shape[0] * mesh.devices.size
            gradients = jax.tree.map(lambda g: g * tasks, gradients)
        metrics = {"loss": value, **metrics, "gradient_norm": optax.tree.norm(gradients)}
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        state = TrainState(optax.apply_updates(state.params, updates), opt_state, state.iteration + 1)
        return state, metrics

    def block(state, source):
        return jax.lax.scan(lambda state, _: iterate(source, state, _), state, length=num_iterations)

    sharded = jax.shard_map(block, mesh=mesh, in_specs=(P(), source_spec), out_specs=(P(), P()))
    return jax.jit(sharded, donate_argnums=0, compiler_options=runtime.compiler_options(mesh.size))


def device_source(
    store: ImageStore, shape: Shape, seed: int, meta_batch: int, mesh: Mesh
) -> tuple[Callable[[Any, jax.Array], Episode], P, Generator[Any, None, None]]:
    """Training episodes drawn on the device from a store that lives there: (draw, spec of the source, sources)."""
    tasks, largest = meta_batch // mesh.devices.size, largest_class(store)

    def draw(source, iteration):
        first = iteration * meta_batch + jax.lax.axis_index(parallel.TASK_AXIS) * tasks
        images, offsets = parallel.vary(source)
        indices = first + jnp.arange(tasks)
        return jax.vmap(lambda i: draw_on_device(images, offsets, largest, shape, seed, "train", i))(indices)

    source = parallel.put(mesh, (np.asarray(store.images), store.offsets))

    def sources():
        while True:
            yield source

    return draw, P(), sources()


def host_source(
    store: ImageStore, shape: Shape, seed: int, meta_batch: int, mesh: Mesh, first: int, last: int, per_dispatch: int
) -> tuple[Callable[[Any, jax.Array], Episode], P, Generator[Any, None, None]]:
    """Training episodes drawn on the host, one block ahead of the device: (draw, spec of the source, sources)."""
    drawer = HostDrawer(store, shape, seed, "train")
    spec = P(None, parallel.TASK_AXIS)
    here = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    tasks = meta_batch // mesh.devices.size
    positions = np.concatenate([np.arange(i * tasks, (i + 1) * tasks) for i in here])

    def draw(source, iteration):
        return jax.tree.map(lambda x: x[iteration % per_dispatch], source)

    def block(iteration):
        indices = (np.arange(iteration, iteration + per_dispatch)[:, None] * meta_batch + positions).reshape(-1)
        episodes = drawer(indices)
        return jax.tree.map(lambda x: x.reshape(per_dispatch, len(positions), *x.shape[1:]), episodes)

    def sources():
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(block, first)
            for iteration in range(first, last, per_dispatch):
                episodes = upcoming.result()
                upcoming = pool.submit(block, iteration + per_dispatch)
                yield parallel.put(mesh, episodes, spec)

    return draw, spec, sources()


def training_source(
    config: ConfigDict, store: ImageStore, mesh: Mesh, first: int, per_dispatch: int
) -> tuple[Callable[[Any, jax.Array], Episode], P, Generator[Any, None, None]]:
    """``device_source`` or ``host_source``, as ``data.storage`` says, from iteration ``first`` on."""
    storage, shape, seed, meta_batch = (
        config.data.storage, configuration.episode_shape(config), config.seed, config.train.meta_batch
    )  # fmt: skip
    if storage == "auto":
        storage = "device" if parallel.fits_on_device(store.images.nbytes, mesh) else "host"
    logging.info("training images: %.2f GB on the %s", store.images.nbytes / 1e9, storage)
    if storage == "device":
        return device_source(store, shape, seed, meta_batch, mesh)
    return host_source(store, shape, seed, meta_batch, mesh, first, config.train.iterations, per_dispatch)


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains, validates every epoch, tests at the end and writes ``results.json``; goes on where a run stopped.

    Args:
      config: a checked configuration.
      workdir: receives ``config.json``, ``metrics.jsonl``, ``checkpoints/`` and ``results.json``.

    Returns:
      The content of ``results.json``.

    Raises:
      UserError: data that cannot be used, a workdir of another configuration or in use, or a loss that is not finite.
      Interrupted: SIGINT or SIGTERM came; the state was saved.
    """
    configuration.check_parallel(config)
    if config.train.tensorboard and find_spec("tensorboardX") is None:
        raise UserError("train.tensorboard needs tensorboardX: pip install 'cxgrad_jax[tensorboard]'")
    stores = configuration.load_stores(config, ("train", "val"))
    stores |= configuration.load_stores(config, ("test",), config.evaluation.data or config.data.name)
    channels = {split: store.images.shape[-1] for split, store in stores.items()}
    if len(set(channels.values())) > 1:
        raise UserError(f"evaluation.data is {config.evaluation.data!r}, whose images have other channels: {channels}")
    mesh = parallel.task_mesh(configuration.num_devices(config))
    learner = configuration.build_learner(config)
    with workdir_lock(workdir):
        claim_workdir(config, workdir)
        checkpoints = Checkpoints(workdir, config.evaluation.ensemble, keep_every=config.train.keep_every)
        state = _train(config, workdir, learner, mesh, stores, checkpoints)
        results = test(config, learner, stores["test"], mesh, checkpoints, state)
        checkpoints.close()
        if jax.process_index() == 0:
            write_json(workdir / "results.json", results)
    return results


def _train(
    config: ConfigDict, workdir: Path, learner: MetaLearner, mesh: Mesh, stores: dict, checkpoints: Checkpoints
) -> TrainState:
    shape, seed = configuration.episode_shape(config), config.seed
    optimiser = configuration.build_optimiser(config)
    images = np.asarray(stores["train"].images[:2])
    resumed = checkpoints.latest()
    if resumed is None:
        state = parallel.put(mesh, init_state(learner, optimiser, seed, images))
    else:
        state = checkpoints.restore(resumed, abstract_state(learner, optimiser, images, mesh))
    iteration = resumed or 0
    logging.info("%s at iteration %d on %d device(s)", "resuming" if iteration else "starting", iteration, mesh.size)
    writer = jax.process_index() == 0
    if writer:
        print(f"{workdir}: {'resuming' if iteration else 'starting'} at iteration {iteration}", file=sys.stderr)
    metrics_file = MetricsFile(workdir / "metrics.jsonl", iteration) if writer else None
    board = _tensorboard(workdir) if writer and config.train.tensorboard else None

    total, per_dispatch = config.train.iterations, configuration.iterations_per_dispatch(config)
    chunk = config.parallel.tasks_per_chunk or parallel.default_chunk(config.train.meta_batch // mesh.size)
    draw, source_spec, sources = training_source(config, stores["train"], mesh, iteration, per_dispatch)
    block = make_train_block(
        learner.loss, optimiser, draw, mesh, source_spec, per_dispatch, chunk, config.train.task_reduction
    )
    val_drawer = HostDrawer(stores["val"], shape, seed, "val")
    validate = over_episodes(query_logits(learner), val_drawer, config.evaluation.val_episodes, mesh)
    query_labels = shape.labels()[1]

    bar = tqdm(total=total, initial=iteration, unit="it", disable=not writer, dynamic_ncols=True)
    with bar, stop_signals() as stop:
        while iteration < total:
            state, metrics = block(state, next(sources))
            metrics = jax.device_get(metrics)
            _check_finite(metrics, iteration, checkpoints)
            iteration += per_dispatch
            record = {name: float(np.mean(values)) for name, values in metrics.items()}
            bar.update(per_dispatch)
            bar.set_postfix(
                {name: f"{record[name]:.3f}" for name in ("loss", "accuracy", "gradient_norm")}, refresh=False
            )
            if metrics_file:
                metrics_file.write(iteration=iteration, **{f"train_{name}": value for name, value in record.items()})
            _write_board(board, iteration, "train", record)
            if iteration % config.train.epoch_iterations == 0 or iteration == total:
                logits = validate(state.params)
                accuracies = episode_accuracies(logits, query_labels)
                record = {"loss": mean_cross_entropy(logits, query_labels), "accuracy": float(accuracies.mean())}
                if metrics_file:
                    named = {f"val_{name}": value for name, value in record.items()}
                    metrics_file.write(iteration=iteration, **named, val_ci95_tasks=ci95_tasks(accuracies))
                _write_board(board, iteration, "val", record)
                if writer:
                    tqdm.write(f"iteration {iteration}: validation accuracy {100 * record['accuracy']:.2f} %")
                checkpoints.save(iteration, state, record["accuracy"])
            if stop():
                if checkpoints.latest() != iteration:
                    checkpoints.save(iteration, state)
                raise Interrupted(f"stopped at iteration {iteration}, saved; run the same command to go on")
    if board is not None:
        board.close()
    return state


def _check_finite(metrics: dict[str, np.ndarray], iteration: int, checkpoints: Checkpoints) -> None:
    finite = np.isfinite(metrics["loss"]) & np.isfinite(metrics["gradient_norm"])
    if not finite.all():
        first, latest = int(np.argmin(finite)), checkpoints.latest()
        name = "gradient_norm" if np.isfinite(metrics["loss"][first]) else "loss"
        value = metrics[name][first]
        saved = f"the last good checkpoint is {checkpoints.directory / str(latest)}" if latest else "none was saved yet"
        raise UserError(
            f"the {name.replace('_', ' ')} became {value} at iteration {iteration + first + 1}; {saved}; "
            "lower train.learning_rate or learner.inner_lr"
        )


def claim_workdir(config: ConfigDict, workdir: Path) -> None:
    """Writes ``config.json``, or refuses a workdir that belongs to another configuration.

    Raises:
      UserError: names the fields that differ.
    """
    if jax.process_index() != 0:
        return
    if (workdir / "config.json").exists():
        configuration.check_same_run(config, workdir)
    elif (workdir / "checkpoints").exists():
        raise UserError(f"{workdir} has checkpoints but no config.json; expected a new folder or a run's own")
    else:
        write_json(workdir / "config.json", configuration.to_json(config))


@contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Makes the workdir and keeps other runs out of it.

    Raises:
      UserError: the folder cannot be made, or another run is in it.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--workdir {workdir} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{workdir} is in use by another run; wait for it or choose another --workdir") from None
        yield


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag, asked for after each dispatch; a second one ends at once.

    Of several processes all stop where one was asked to.
    """
    received: list[int] = []

    def handle(number, _):
        received.append(number)
        for number in previous:
            signal.signal(number, signal.SIG_DFL)

    def stop():
        if jax.process_count() == 1:
            return bool(received)
        return bool(multihost_utils.process_allgather(np.asarray(len(received))).any())

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _tensorboard(workdir: Path):
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(workdir / "tensorboard"))


def _write_board(board, iteration: int, split: str, record: dict[str, float]) -> None:
    if board is not None:
        for name, value in record.items():
            if math.isfinite(value):
                board.add_scalar(f"{split}/{name}", value, iteration)
