"""Checkpoints of a run: the newest one, and the five best by validation accuracy (Orbax)."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cxgrad_jax.errors import UserError

# Metric of a checkpoint written between two validations (an interrupted run): it ranks below every validated one.
NOT_VALIDATED = -1.0


class Checkpoints:
    """The checkpoints of one run, by iteration, in ``workdir/checkpoints``.

    A checkpoint appears under its final name only when it is complete; one that a kill cut short is never read.
    """

    def __init__(self, workdir: Path, num_best: int):
        def accuracy(metrics):
            return metrics["val_accuracy"]

        keep = [policies.LatestN(1), policies.BestN(get_metric_fn=accuracy, reverse=False, n=num_best)]
        self.directory = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(keep),
                best_fn=accuracy,
                enable_async_checkpointing=False,
            ),
        )

    def save(self, iteration: int, state: Any, val_accuracy: float = NOT_VALIDATED) -> None:
        """Saves ``state`` after ``iteration`` and drops what is neither newest nor among the best."""
        metrics = {"val_accuracy": float(val_accuracy)}
        self._manager.save(iteration, args=ocp.args.StandardSave(state), metrics=metrics, force=True)
        self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """The iteration of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def best(self) -> list[int]:
        """Iterations of the validated checkpoints at hand that rank best, best first; the later one of a tie."""
        scored = [(step, self._manager.metrics(step)["val_accuracy"]) for step in self._manager.all_steps()]
        scored = [(step, value) for step, value in scored if value != NOT_VALIDATED]
        return [step for step, _ in sorted(scored, key=lambda pair: (-pair[1], -pair[0]))]

    def restore(self, iteration: int, like: Any) -> Any:
        """The state saved after ``iteration``, with the structure, shapes and placement of ``like``.

        Raises:
          UserError: the checkpoint is damaged or belongs to another model.
        """
        try:
            return self._manager.restore(iteration, args=ocp.args.StandardRestore(like))
        except Exception as error:  # Orbax raises many kinds for a damaged file
            reason = str(error).strip().split("\n")[0][:200]
            raise UserError(
                f"checkpoint {self.directory / str(iteration)} cannot be read ({reason}); "
                "delete that folder to go on from the one before it"
            ) from None

    def close(self) -> None:
        self._manager.close()


def abstract(state: Any) -> Any:
    """Shapes, dtypes and placements of a state, as ``Checkpoints.restore`` takes."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
