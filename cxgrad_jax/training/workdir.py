"""The folder of a run: its ``config.json``, which says whose folder it is, and the lock that keeps other runs out."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from cxgrad_jax import locks
from cxgrad_jax.data import ImageStore
from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.files import write_json
from cxgrad_jax.training.checkpoints import check_place, newest_checkpoint
from cxgrad_jax.training.checks import check_fields, expected_fields
from cxgrad_jax.training.config import ConfigDict, fields, to_json
from cxgrad_jax.training.images_of_run import DATA_FILE, check_same_images

FORMAT = 2  # the format of config.json, which has had one from 2 on; a change that older runs cannot follow raises it

# These fields do not change what a run computes.
NEVER_MATTER = ("data.dir", "data.storage", "train.tensorboard", "train.iterations_per_dispatch")


NAMING = "name it too: --config.{section}.name={name}, or cx.load_run(…, named=({name!r},))"


def read_config(workdir: Path, named: Iterable[str] = (), naming: str = NAMING) -> ConfigDict:
    """Reads the configuration of the run in ``workdir`` from its ``config.json``.

    Fields younger than the run get their defaults, by which it was trained.

    Args:
      workdir: the folder of the run.
      named: the learners and models of the user's own that may be imported. A file alone must not choose code to run.
      naming: what the message says of naming another one, with ``{section}`` and ``{name}``.

    Raises:
      UserError: there is no run, the file is damaged or of a newer version, or it names a module that is not in
        ``named``.
    """
    path = workdir / "config.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        check_format(path, saved.pop("format", 1))
        for section in ("learner", "model"):
            name = saved[section]["name"]
            if "." in name and name not in named:
                raise UserError(
                    f"{path} names {section}.name {name!r}, and reading it would run that module; if you trust it, "
                    + naming.format(section=section, name=name)
                )
        for section in saved.values():
            if isinstance(section, dict):
                section.update({field: tuple(value) for field, value in section.items() if isinstance(value, list)})
        config = ConfigDict(saved)
        for section, defaults in expected_fields(config).items():
            if isinstance(defaults, ConfigDict):
                config[section] = ConfigDict({**defaults, **config[section]})
        check_fields(config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; expected the folder of a run") from None
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}); restore it or train the run again") from None
    return config


def check_format(path: Path, number: Any) -> None:
    """Refuses a ``config.json`` of another format.

    Raises:
      UserError: it has another format. The line says which version reads it.
    """
    if number == 1:
        raise UserError(
            f"{path} is of version 0.1.0, which drew other episodes and another start from the same seed; test it with "
            "that version, or train again in another folder"
        )
    if number != FORMAT:
        raise UserError(f"{path} has format {number!r}; this version reads {FORMAT}: use the version that made it")


def check_same_run(config: ConfigDict, workdir: Path, *may_differ: str, advice: str) -> None:
    """Refuses a configuration that is not that of the run in ``workdir``.

    Args:
      config: the given configuration.
      workdir: the folder of the run.
      may_differ: fields and sections that do not matter, beside ``NEVER_MATTER``.
      advice: what to do instead, for the message.

    Raises:
      UserError: other fields differ. The line names them and ends with the advice.
    """
    theirs = fields(read_config(workdir, named=(config.learner.name, config.model.name)))
    ours = fields(config)
    different = [
        f"{field}: {ours.get(field, 'absent')!r}, not {theirs.get(field, 'absent')!r}"
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field, "absent") != theirs.get(field, "absent")
        and not field.startswith((*NEVER_MATTER, *may_differ))
    ]
    if different:
        shown = "; ".join(different[:4]) + (f"; and {len(different) - 4} more" if different[4:] else "")
        raise UserError(f"{workdir} holds a run of another configuration ({shown}); {advice}")


def free(workdir: Path) -> Path:
    """The first of ``workdir-2``, ``workdir-3``, … that does not exist."""
    number = 2
    while (found := workdir.with_name(f"{workdir.name}-{number}")).exists():
        number += 1
    return found


def check_extends(config: ConfigDict, workdir: Path, given: Path | None = None) -> None:
    """Refuses to train the run in ``workdir`` with another configuration, or with fewer iterations than it has done.

    Another division over devices is allowed. It gives the same numbers to rounding, and ``train`` says so.

    Args:
      config: the given configuration.
      workdir: the folder of the run.
      given: the value of ``--workdir``, if it is a folder of several runs.

    Raises:
      UserError: the configuration or the number of iterations is refused. The line ends with a folder that is free.
    """
    another = f"choose another folder: --workdir={free(given or workdir)}"
    check_same_run(config, workdir, "train.iterations", "parallel.", advice=another)
    done = newest_checkpoint(workdir) or 0
    if config.train.iterations < done:
        raise UserError(
            f"train.iterations is {config.train.iterations}, but {workdir} has a checkpoint after {done}; a run can be "
            f"extended, not shortened: give at least {done}, or another folder: --workdir={free(given or workdir)}"
        )


def check_claim(config: ConfigDict, workdir: Path, stores: Iterable[ImageStore]) -> dict[str, Any]:
    """Refuses a folder that belongs to another configuration; returns the content for ``data.json``.

    Raises:
      UserError: ``check_extends`` refuses the configuration or ``check_same_images`` the images, or there are
        checkpoints without a configuration.
    """
    if (workdir / "config.json").exists():
        check_extends(config, workdir)
    elif newest_checkpoint(workdir) is not None:
        raise UserError(f"{workdir} has checkpoints but no config.json; expected a new folder or a run's own")
    return check_same_images(stores, workdir)


def claim(config: ConfigDict, workdir: Path, images: dict[str, Any]) -> None:
    """Writes ``config.json`` and, with the ``images`` of ``check_claim``, ``data.json``."""
    write_json(workdir / "config.json", {"format": FORMAT, **to_json(config)})
    write_json(workdir / DATA_FILE, images)


def check_space(workdir: Path, needed: int) -> None:
    """Refuses a disk that is too small for ``needed`` bytes of checkpoints.

    Raises:
      UserError: the disk is too small. The line names both numbers.
    """
    disk = shutil.disk_usage(workdir)
    if disk.total and disk.free < needed:  # some file systems report nothing but zeros
        raise UserError(
            f"{workdir} needs {needed / 1e6:.1f} MB for checkpoints, and {disk.free / 1e6:.1f} MB are free; make room, "
            "or choose another folder with --workdir"
        )


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it.

    Raises:
      UserError: the folder cannot be made or written, its path cannot hold checkpoints, or another run is in it.
    """
    check_place(workdir)
    if jax.process_index() != 0:
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except (OSError, ValueError) as error:  # ValueError: no file has such a name
        raise UserError(f"--workdir {workdir} cannot be written: {reason(error)}") from None
    with lock:
        try:
            is_free = locks.take(lock)
        except OSError:  # a file system without locks, where two runs in one folder are not noticed
            is_free = True
        if not is_free:
            raise UserError(f"{workdir} is in use by another run; wait for it, or choose another --workdir")
        yield
