"""Checkpoints of a run: the newest one, the best by validation accuracy, and some at a fixed distance (Orbax)."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.files import write_whole
from cxgrad_jax.machine import cores, processor
from cxgrad_jax.saving import params_sha256
from cxgrad_jax.training.orbax_log import orbax_at_work

# The metric of a checkpoint that an interrupted run wrote between two validations. It ranks below all validated ones.
NOT_VALIDATED = -1.0

# A checkpoint is moved here before it is removed, so that a kill leaves no half of one under its name.
_DROPPED = "dropped"

# After an exception, Orbax's other threads get this many seconds to fail in silence as well.
OTHER_THREADS = 0.5


def newest_checkpoint(workdir: Path) -> int | None:
    """The iteration of a run's newest complete checkpoint, or None. What a kill left of one does not count."""
    return max((int(folder.name) for folder in _complete(workdir / "checkpoints")), default=None)


def _complete(directory: Path) -> list[Path]:
    return [folder for folder in directory.glob("[0-9]*") if folder.name.isdigit()]


class Checkpoints:
    """The checkpoints of one run, by iteration, in ``workdir/checkpoints``.

    A checkpoint gets its final name only when it is complete. If a kill cuts one short, it is never read, and the next
    run removes it. Each keeps a digest of its content, so that damage of any kind is found.

    Args:
      workdir: the folder of the run.
      num_best: the number of best checkpoints that are kept, beside the newest.
      read_only: whether nothing may be made, saved or removed, because another process may be training.
      keep_every: the number of iterations between checkpoints that are kept whatever their accuracy; 0 keeps none.
      tasks_at_once: the number of tasks of a device that the run vectorises at once, for ``machine``.

    Raises:
      UserError: a checkpoint's record of its accuracy and digest is damaged, the folder cannot be read or made, or
        ``check_place`` refuses it.
    """

    def __init__(
        self, workdir: Path, num_best: int, read_only: bool = False, keep_every: int = 0, tasks_at_once: int = 1
    ):
        check_place(workdir)
        self.directory = (workdir / "checkpoints").absolute()
        self._num_best, self._keep_every, self._tasks_at_once = num_best, keep_every, tasks_at_once
        for folder in _complete(self.directory):
            self._check_record(folder)

        if not read_only:
            self._remove_remains()

        def accuracy(metrics):
            return metrics["val_accuracy"]

        def rank(metrics):
            return metrics["val_accuracy"] if metrics.get("ends_epoch", True) else NOT_VALIDATED

        keep = [policies.LatestN(1), policies.BestN(get_metric_fn=rank, reverse=False, n=num_best)]
        if keep_every:
            keep.append(policies.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(keep),
            best_fn=accuracy,
            enable_async_checkpointing=False,
            save_interval_steps=0 if read_only else 1,
            todelete_subdir=None if read_only else _DROPPED,
            create=not read_only,
            read_only=read_only,
        )
        try:
            with orbax_at_work():
                self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            done = "read" if read_only else "written"
            raise UserError(f"{self.directory} cannot be {done}: {reason(error)}") from None

    def save(self, iteration: int, state: Any, val_accuracy: float = NOT_VALIDATED, ends_epoch: bool = True) -> None:
        """Saves ``state`` after ``iteration`` and drops checkpoints that need not be kept.

        If the newest checkpoint is of the same iteration, it holds this state and was saved before its validation: then
        only its accuracy is written. The first checkpoint of a run is read back.

        If it does not end an epoch, it is the last one of a run, which may be extended. It then takes no other's place
        among the best that are kept, since ``withdraw_accuracy`` may take its accuracy away.

        Raises:
          UserError: it cannot be written, or the first one cannot be read again.
        """
        if self.latest() == iteration:
            if val_accuracy != NOT_VALIDATED:
                self._write_accuracy(iteration, float(val_accuracy), ends_epoch)
            return
        first = self.latest() is None
        metrics = {
            "val_accuracy": float(val_accuracy),
            "ends_epoch": ends_epoch,
            "shapes": _shapes(state),
            "sha256": params_sha256(jax.device_get(state)),
            "machine": machine(state, self._tasks_at_once),
        }
        with orbax_at_work():
            try:
                self._manager.save(iteration, args=ocp.args.StandardSave(state), metrics=metrics, force=True)
                self._manager.wait_until_finished()
            except Exception as error:  # Orbax raises many kinds where a disk is full or read-only
                time.sleep(OTHER_THREADS)
                latest = self.latest()
                saved = "none was saved before" if latest is None else f"the last good one is of iteration {latest}"
                raise UserError(
                    f"checkpoint {self.directory / str(iteration)} cannot be written ({_line(error)}); {saved}: make "
                    "room and run the same command again"
                ) from None
        self._remove_remains()
        if first:
            self.restore(iteration, state)

    def withdraw_accuracy(self, iteration: int) -> None:
        """Makes the newest checkpoint one that was not validated, because the run is longer now than when it was."""
        self._rewrite(iteration, val_accuracy=NOT_VALIDATED)

    def _write_accuracy(self, iteration: int, val_accuracy: float, ends_epoch: bool) -> None:
        """Tells the newest checkpoint its accuracy, and drops those that need not be kept now, as a save does."""
        self._rewrite(iteration, val_accuracy=val_accuracy, ends_epoch=ends_epoch)
        ranked = [step for step in self.best() if self._record(step).get("ends_epoch", True)]
        with orbax_at_work():
            for other in sorted({*self.all()} - {iteration, *ranked[: self._num_best]}):
                if not self._keep_every or other % self._keep_every:
                    self._manager.delete(other)
        self._remove_remains()

    def _rewrite(self, iteration: int, **changes: Any) -> None:
        """Changes the record of a checkpoint, which every process has read again when this returns."""
        if jax.process_index() == 0:
            record = {**self._record(iteration), **changes}
            write_whole(self.directory / str(iteration) / "metrics" / "metrics", json.dumps(record))
        _wait_for_all(f"record of iteration {iteration} is written")
        with orbax_at_work():
            self._manager.reload()
        _wait_for_all(f"record of iteration {iteration} is read")  # all drop the same ones

    def latest(self) -> int | None:
        """The iteration of the newest checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def all(self) -> list[int]:
        """The iterations of the checkpoints at hand, in order."""
        return sorted(self._manager.all_steps())

    def best(self) -> list[int]:
        """The iterations of the validated checkpoints at hand, best first. The later one wins a tie.

        Raises:
          UserError: none was validated.
        """
        scored = [(step, self._record(step)["val_accuracy"]) for step in self._manager.all_steps()]
        scored = [(step, value) for step, value in scored if value != NOT_VALIDATED]
        if not scored:
            raise UserError(f"{self.directory} has no validated checkpoint; train for at least one epoch first")
        return [step for step, _ in sorted(scored, key=lambda pair: (-pair[1], -pair[0]))]

    def is_validated(self, iteration: int) -> bool:
        """Whether the checkpoint has an accuracy. If the run was stopped, it may have none."""
        return self._record(iteration)["val_accuracy"] != NOT_VALIDATED

    def machine(self, iteration: int) -> str:
        """The ``machine`` that the checkpoint was made on, or an empty string if it does not say."""
        return self._record(iteration).get("machine", "")

    def fits(self, iteration: int, like: Any) -> bool:
        """Whether the state saved after ``iteration`` has the shapes of ``like``."""
        return self._record(iteration)["shapes"] == _shapes(like)

    def restore(self, iteration: int, like: Any) -> Any:
        """The state saved after ``iteration``, bit for bit.

        Args:
          iteration: the iteration of a checkpoint at hand.
          like: a state of these shapes, dtypes and shardings: arrays, or ``jax.ShapeDtypeStruct``s.

        Raises:
          UserError: the checkpoint is damaged, or it has other shapes.
        """
        folder, record, expected = self.directory / str(iteration), self._record(iteration), _shapes(like)
        for name in sorted(expected | record["shapes"]):
            ours, theirs = expected.get(name), record["shapes"].get(name)
            if ours != theirs:
                raise UserError(
                    f"{folder} has {name} {theirs}, not {ours}; are the images of the size and channels trained on?"
                )
        with orbax_at_work():
            try:
                like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
                state = self._manager.restore(iteration, args=ocp.args.StandardRestore(like))
            except Exception as error:  # Orbax raises many kinds for a damaged file
                time.sleep(OTHER_THREADS)
                self._record(iteration)  # it may be gone
                if isinstance(error, PermissionError) or "PERMISSION_DENIED" in str(error):
                    raise UserError(f"checkpoint {folder} cannot be read: Permission denied") from None
                raise _damaged(folder, error) from None
        if params_sha256(jax.device_get(state)) != record["sha256"]:
            raise _damaged(folder, "its content is not what was saved")
        return state

    def close(self) -> None:
        self._manager.close()

    def _remove_remains(self) -> None:
        """Removes checkpoints that were dropped, and those that a kill left unfinished."""
        if jax.process_index() == 0:
            for pattern in (_DROPPED, "*.orbax-checkpoint-tmp*"):
                for folder in self.directory.glob(pattern):
                    shutil.rmtree(folder, ignore_errors=True)

    def _record(self, iteration: int) -> dict[str, Any]:
        record = self._manager.metrics(iteration) if (self.directory / str(iteration)).exists() else None
        if record is None:
            raise UserError(
                f"checkpoint {self.directory / str(iteration)} is gone: a training that goes on keeps only its best "
                "and its newest; run the same command again"
            )
        return record

    @staticmethod
    def _check_record(folder: Path) -> None:
        try:
            record = json.loads((folder / "metrics" / "metrics").read_text())
            kinds = {"val_accuracy": float, "shapes": dict, "sha256": str}
            if not all(isinstance(record[name], kind) for name, kind in kinds.items()) or not record["sha256"]:
                raise ValueError("its metrics are not those that were saved")
        except PermissionError as error:
            raise UserError(f"checkpoint {folder} cannot be read: {reason(error)}") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if folder.exists():  # the training that still goes on may just have dropped it
                raise _damaged(folder, error) from None


def _wait_for_all(what: str) -> None:
    """Waits until every process of a run has come to the same place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def _shapes(state: Any) -> dict[str, list[Any]]:
    """The shape and dtype of every leaf by its path: ``{".params['model']…": [3, 3, 3, 48, "float32"]}``."""
    return {jax.tree_util.keystr(path): [*x.shape, str(x.dtype)] for path, x in jax.tree.leaves_with_path(state)}


def machine(state: Any, tasks_at_once: int) -> str:
    """What results depend on bit for bit: devices, CPU, version of JAX, default float, and tasks vectorised at once.

    Older versions wrote only the devices and the CPU, which come first.
    """
    devices = sorted(jax.tree.leaves(state)[0].sharding.device_set, key=lambda device: device.id)
    where = f"{len(devices)} {devices[0].device_kind}, {processor()}, {cores()} cores"
    return f"{where}, jax {jax.__version__}, {jax.dtypes.canonicalize_dtype(float)}, {tasks_at_once} task(s) at once"


def check_place(workdir: Path) -> None:
    """Refuses a folder from which Orbax could not read checkpoints again.

    Raises:
      UserError: the path has such a character. The line names it.
    """
    try:
        place = str(workdir.absolute())
    except FileNotFoundError:
        raise UserError(f"--workdir {workdir} lies in a folder that was removed; go to another one") from None
    try:
        place.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--workdir {workdir} has a name that is not UTF-8, and checkpoints there could not be written; choose "
            "another folder, or a locale with UTF-8"
        ) from None
    if bad := [character for character in "[]*?\\" if character in place]:
        raise UserError(
            f"--workdir {workdir} has a {bad[0]!r} in its path, and checkpoints there could not be read again; choose "
            "another folder"
        )


def _line(reason: Exception | str) -> str:
    return (str(reason).strip() or type(reason).__name__).split("\n")[0][:120]


def _damaged(folder: Path, reason: Exception | str) -> UserError:
    later = [each.name for each in _complete(folder.parent) if int(each.name) > int(folder.name)]
    after = f"; to train again what it held, delete the later ones ({', '.join(sorted(later, key=int))}), too"
    advice = f"go on without it{after}" if later else "go on from the one before it"
    return UserError(f"checkpoint {folder} is damaged ({_line(reason)}); delete that folder to {advice}")
