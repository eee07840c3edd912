"""``--mode=train``: claims the folder, trains or resumes, tests, and writes the results."""

import functools
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from cxgrad_jax.errors import UserError
from cxgrad_jax.files import write_json
from cxgrad_jax.fitting import TrainState
from cxgrad_jax.training import workdir as folder
from cxgrad_jax.training.build import abstract_state, build, first_state, keep_every, load_stores
from cxgrad_jax.training.checkpoints import Checkpoints, has_checkpoint, machine
from cxgrad_jax.training.checks import check_parallel
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.loop import run_loop
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
    if config.train.start_from and not has_checkpoint(workdir):  # a resumed run has started
        start = functools.partial(started, trained=trained_params(config), config=config, images=setup.images)
        jax.eval_shape(lambda: start(setup.learner.init(jax.random.key(0), setup.images)))  # it refuses other shapes
    with folder.locked(workdir):
        folder.claim(config, workdir, stores.values())
        checkpoints = Checkpoints(workdir, config.evaluation.ensemble, keep_every=keep_every(config))
        resumed = checkpoints.latest()
        if resumed is None:
            state = first_state(setup, start)
        else:
            like = abstract_state(setup.learner, setup.optimiser, setup.images, setup.mesh)
            state = checkpoints.restore(resumed, like)
        writer = jax.process_index() == 0
        if writer:
            folder.check_space(workdir, _bytes_to_come(config, state, checkpoints))
        if writer and resumed and checkpoints.machine(resumed) not in ("", machine(state)):
            print(
                f"{workdir}: the run goes on with {machine(state)} after {checkpoints.machine(resumed)}; the numbers "
                "will agree to rounding, not bit for bit",
                file=sys.stderr,
            )
        metrics_file = MetricsFile(workdir / "metrics.jsonl", resumed or 0) if writer else None
        if writer:
            begin = f"resuming after iteration {resumed}" if resumed else "starting"
            print(f"{workdir}: {begin}, {setup.mesh.size} device(s)", flush=True)
        board = Board(workdir / "tensorboard", resumed or 0) if writer and config.train.tensorboard else None
        try:
            state = run_loop(setup, state, checkpoints, metrics_file, board)
        finally:
            if board:
                board.close()
        results = test_run(config, setup.learner, stores["test"], setup.mesh, checkpoints, state)
        checkpoints.close()
        if writer:
            announce(results)
            write_json(workdir / "results.json", results)
    return results


def _bytes_to_come(config: ConfigDict, state: TrainState, checkpoints: Checkpoints) -> int:
    """The most bytes of checkpoints still to be written: those to keep, the newest, and one in the making."""
    if int(state.iteration) >= config.train.iterations:
        return 0
    epochs = -(-config.train.iterations // config.train.epoch_iterations)
    kept = min(epochs, config.evaluation.ensemble + config.train.iterations // keep_every(config)) + 2
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + DESCRIPTION_BYTES
    return max(1, kept - len(checkpoints.all())) * size
