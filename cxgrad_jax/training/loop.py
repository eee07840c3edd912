"""The outer loop: dispatches of several iterations, and a validation and a checkpoint after every epoch."""

import functools
from collections.abc import Iterator
from typing import NoReturn

import jax
import numpy as np
from tqdm.auto import tqdm

from cxgrad_jax.errors import Interrupted, UserError
from cxgrad_jax.evaluation import evaluation_of, mean_cross_entropy
from cxgrad_jax.fitting import COMPILING, TrainState, first_not_finite
from cxgrad_jax.platforms import current_platform
from cxgrad_jax.training.build import Setup
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.interruption import stop_signals
from cxgrad_jax.training.metrics_file import MetricsFile
from cxgrad_jax.training.tensorboard import Board


def dispatches(first: int, last: int, epoch: int, most: int) -> Iterator[tuple[int, int]]:
    """Divides the iterations ``first`` to ``last - 1`` into dispatches, as pairs of the first iteration and the length.

    A dispatch ends where an epoch ends, whatever iteration the run was resumed at. Within an epoch, dispatches end at
    multiples of ``most``.
    """
    while first < last:
        within = first % epoch
        end = min(first - within + epoch, first + most - within % most, last)
        yield first, end - first
        first = end


def ends_epoch(iteration: int, epoch: int) -> bool:
    """Whether a run of any length validates after ``iteration`` iterations. The end of a run is validated, too."""
    return iteration > 0 and iteration % epoch == 0


def run_loop(
    setup: Setup,
    state: TrainState,
    checkpoints: Checkpoints,
    metrics_file: MetricsFile | None,
    board: Board | None = None,
) -> TrainState:
    """Trains from ``state`` to the last iteration.

    Args:
      setup: the parts of the run.
      state: the state to start from.
      checkpoints: the checkpoints, which get another one after each validation.
      metrics_file: the file that gets a record for each dispatch and each validation. It is None in all processes but
        one.
      board: the TensorBoard that gets the same numbers as events, or None.

    Returns:
      The state after the last iteration.

    Raises:
      UserError: the loss, a gradient or a parameter is not finite, or a file cannot be written.
      Interrupted: this process or another one received SIGINT or SIGTERM, and the state is saved. A validation that was
        cut short is made when the run goes on.
    """
    iteration, writer, resumed = int(state.iteration), metrics_file is not None, checkpoints.latest()
    plan = functools.partial(dispatches, iteration, setup.iterations, setup.epoch_iterations, setup.dispatch_iterations)
    first_end = sum(next(plan(), (iteration, 0)))
    program = functools.cache(setup.program)

    def record(split: str, numbers: dict[str, float]) -> None:
        if metrics_file:
            metrics_file.write(iteration=iteration, **{f"{split}_{name}": value for name, value in numbers.items()})
        if board:
            board.write(iteration, split, numbers)

    def is_validated_here() -> bool:
        return ends_epoch(iteration, setup.epoch_iterations) or iteration == setup.iterations

    def refuse(iteration: int, what: str) -> NoReturn:
        latest = checkpoints.latest()
        good = "none was saved yet" if latest is None else f"the last good one is {checkpoints.directory / str(latest)}"
        lower = " or ".join(setup.rates)
        raise UserError(f"{what} at iteration {iteration}; {good}; lower {lower}, in a run with another --workdir")

    def check_finite() -> None:
        # The loss and the gradient of an iteration are of the parameters before its step.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params))):
            refuse(iteration, "a parameter became infinite or nan")

    def stop_if_asked() -> None:
        if stop():
            if checkpoints.latest() != iteration:
                check_finite()
                checkpoints.save(iteration, state)
            raise Interrupted(f"stopped at iteration {iteration}, saved; run the same command to go on")

    def validate() -> None:
        check_finite()
        logits = setup.val_logits(state.params, stop_if_asked)
        if not np.isfinite(logits).any():
            refuse(iteration, "all logits of the validation became infinite or nan")
        found = evaluation_of(logits, setup.query_labels)
        loss = mean_cross_entropy(logits, setup.query_labels)
        record("val", {"loss": loss, "accuracy": found.accuracy, "ci95_tasks": found.ci95})
        if writer:
            bar.write(f"iteration {iteration}: validation accuracy {100 * found.accuracy:.2f} %")
        checkpoints.save(iteration, state, found.accuracy, ends_epoch(iteration, setup.epoch_iterations))

    bar = tqdm(
        total=setup.iterations, initial=iteration, unit="it", disable=not writer, dynamic_ncols=True,
        desc=COMPILING[current_platform()],
    )  # fmt: skip
    with bar, stop_signals() as stop:
        if resumed is None and first_end == iteration:
            validate()  # nothing is to be trained, and the test takes the start
        if resumed is not None and is_validated_here() and not checkpoints.is_validated(resumed):
            validate()  # the run was stopped during this validation
        for (first, length), arrays in zip(plan(), setup.source.arrays(plan()), strict=True):
            state, metrics = program(length)(state, arrays)
            metrics = jax.device_get(metrics)
            if broken := first_not_finite(metrics):
                refuse(first + broken[0] + 1, broken[1])
            iteration = first + length
            numbers = {name: float(np.mean(values)) for name, values in metrics.items()}
            if iteration == first_end:
                bar.set_description("training", refresh=False)
                bar.unpause()  # the rate counts from here
            bar.update(length)
            bar.set_postfix(
                {name: f"{numbers[name]:.3f}" for name in ("loss", "accuracy", "gradient_norm")}, refresh=False
            )
            record("train", numbers)
            if is_validated_here():
                validate()
            stop_if_asked()
    return state
