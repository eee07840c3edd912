"""``--mode=train``: claims the folder, trains or resumes, tests, and writes the results."""

import functools
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from cxgrad_jax.errors import UserError
from cxgrad_jax.files import write_json
from cxgrad_jax.fitting import TrainState
from cxgrad_jax.training import workdir as folder
from cxgrad_jax.training.build import abstract_state, build, first_state, keep_every, load_stores, tasks_at_once
from cxgrad_jax.training.checkpoints import Checkpoints, machine, newest_checkpoint
from cxgrad_jax.training.checks import check_parallel
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.loop import ends_epoch, run_loop
from cxgrad_jax.training.metrics_file import MetricsFile
from cxgrad_jax.training.starting import started, trained_params
from cxgrad_jax.training.tensorboard import Board
from cxgrad_jax.training.testing import announce, test_run

# The description of a checkpoint's arrays takes about this many bytes of a disk.
DESCRIPTION_BYTES = 100_000


def train(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains, validates after every epoch, tests at the end and writes ``results.json``.

    A run that was stopped goes on from its newest checkpoint.

    Args:
      config: a checked configuration.
      workdir: the folder that receives ``config.json``, ``data.json``, ``metrics.jsonl``, ``checkpoints/`` and
        ``results.json``.

    Returns:
      The content of ``results.json``.

    Raises:
      UserError: the data cannot be used; the folder has a run of another configuration or of other images, is in use,
        not writable or too small; or a loss is not finite.
      Interrupted: SIGINT or SIGTERM came, and the state is saved.
    """
    workdir = Path(workdir)
    check_parallel(config)
    if config.train.tensorboard and find_spec("tensorboardX") is None:
        raise UserError("train.tensorboard needs tensorboardX: pip install 'cxgrad_jax[tensorboard]'")
    stores = load_stores(config, ("train", "val"))
    stores |= load_stores(config, ("test",), config.evaluation.data or config.data.name)
    channels = {split: store.images.shape[-1] for split, store in stores.items()}
    if len(set(channels.values())) > 1:
        raise UserError(f"evaluation.data is {config.evaluation.data!r}, whose images have other channels: {channels}")
    setup, start = build(config, stores), None
    if config.train.start_from and newest_checkpoint(workdir) is None:  # a resumed run has started
        start = functools.partial(started, trained=trained_params(config), config=config, images=setup.images)
        jax.eval_shape(lambda: start(setup.learner.init(jax.random.key(0), setup.images)))  # it refuses other shapes
    at_once = tasks_at_once(config)
    with folder.locked(workdir):
        writer = jax.process_index() == 0
        images = folder.check_claim(config, workdir, stores.values()) if writer else {}
        checkpoints = Checkpoints(
            workdir, config.evaluation.ensemble, keep_every=keep_every(config), tasks_at_once=at_once
        )
        resumed = checkpoints.latest()
        if resumed is None:
            state = first_state(setup, start)
        else:
            like = abstract_state(setup.learner, setup.optimiser, setup.images, setup.mesh)
            state = checkpoints.restore(resumed, like)
        if writer:
            folder.check_space(workdir, _bytes_to_come(config, state, checkpoints))
            folder.claim(config, workdir, images)
        if resumed is not None:
            if writer:
                _tell_another_machine(workdir, machine(state, at_once), checkpoints.machine(resumed))
            goes_on = resumed < config.train.iterations and checkpoints.is_validated(resumed)
            if goes_on and not ends_epoch(resumed, config.train.epoch_iterations):
                checkpoints.withdraw_accuracy(resumed)  # it was the end of the run, which is longer now
        first, is_validated = resumed or 0, resumed is not None and checkpoints.is_validated(resumed)
        metrics_file = MetricsFile(workdir / "metrics.jsonl", first, is_validated) if writer else None
        if writer:
            begin = "starting" if resumed is None else f"resuming after iteration {resumed}"
            print(f"{workdir}: {begin}, {setup.mesh.size} device(s)", flush=True)
        board = None
        if writer and config.train.tensorboard:
            board = Board(workdir / "tensorboard", first, is_validated)
        try:
            state = run_loop(setup, state, checkpoints, metrics_file, board)
        finally:
            if board:
                board.close()
        results = test_run(config, setup.learner, stores["test"], setup.mesh, checkpoints, state)
        checkpoints.close()
        if writer:
            announce(results)
            write_json(workdir / "results.json", results | _by_query_statistics(workdir, results))
    return results


def _by_query_statistics(workdir: Path, results: dict[str, Any]) -> dict[str, Any]:
    """What an evaluation of the same test added to ``results.json``; an empty dict if there is nothing."""
    try:
        known = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
        if all(known[name] == results[name] for name in ("params_sha256", "config", "episode_accuracies")):
            return {"by_query_statistics": known["by_query_statistics"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}


def _tell_another_machine(workdir: Path, ours: str, theirs: str) -> None:
    """Says on stderr that a run goes on where it does not stay the same bit for bit."""
    if not ours.startswith(theirs):  # an older version's says less
        print(
            f"{workdir}: the run goes on with {ours} after {theirs}; the numbers will agree to rounding, not bit for "
            "bit",
            file=sys.stderr,
        )


def _bytes_to_come(config: ConfigDict, state: TrainState, checkpoints: Checkpoints) -> int:
    """The most bytes of checkpoints still to be written: those to keep, the newest, and one in the making."""
    if int(state.iteration) >= config.train.iterations:
        return 0
    epochs = -(-config.train.iterations // config.train.epoch_iterations)
    kept = min(epochs, config.evaluation.ensemble + config.train.iterations // keep_every(config)) + 2
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + DESCRIPTION_BYTES
    return max(1, kept - len(checkpoints.all())) * size
