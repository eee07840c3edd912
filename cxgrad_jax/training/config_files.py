"""Configuration files: how ``--config=NAME`` finds one, how it is read, and which one a run is nearest to.

A file of the user's comes first. Otherwise NAME is a file in this project's ``configs/``, which an installed package
contains: ``tiered_1shot``, ``baselines/alfa``, or ``configs/NAME.py`` as in a checkout.
"""

import difflib
import os
import runpy
import traceback
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.training.checks import check_fields
from cxgrad_jax.training.config import ConfigDict, fields
from cxgrad_jax.weight_files import HUB, bundled

PACKAGE = Path(__file__).parents[1]


def packaged() -> dict[str, Path]:
    """The configuration files of this project by name, such as ``"tiered_1shot"`` or ``"baselines/alfa"``.

    They are inside an installed package, and beside the package in a checkout.
    """
    folder = next((folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()), PACKAGE)
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.py"))}
    return found if folder != PACKAGE else {}


def find(file: str) -> Path:
    """The configuration file that ``file`` names.

    Raises:
      UserError: there is none. The line has similar names.
    """
    there = os.path.expanduser(file)
    if os.path.isfile(there):  # unlike Path.is_file, it raises nothing
        return Path(there)
    name = Path(file).as_posix().removeprefix("configs/").removesuffix(".py")
    known = packaged()
    if name in known:
        return known[name]
    by_stem = {each.rsplit("/", 1)[-1]: each for each in reversed(known)} | {each: each for each in known}
    close = [by_stem[each] for each in difflib.get_close_matches(name.rsplit("/", 1)[-1], by_stem, n=3)]
    hint = f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else "expected one such as tiered_1shot"
    raise UserError(f"--config: {file or repr(file)} is neither a file nor the name of a configuration; {hint}")


def config_name(spec: str) -> str:
    """The name of the run of ``NAME`` or ``NAME:PRESET``: ``"mini_1shot"`` or ``"mini_1shot-paper"``."""
    file, preset = _parts(spec)
    return Path(file).name.removesuffix(".py") + (f"-{preset}" if preset else "")


def _parts(spec: str) -> tuple[str, str]:
    """The file and the preset. A folder may have a colon in its name, but a preset has no slash."""
    file, _, preset = spec.rpartition(":")
    return (file, preset) if file and "/" not in preset else (spec, "")


def load_config(spec: str) -> ConfigDict:
    """The configuration of ``NAME`` or ``NAME:PRESET``: what its ``get_config()`` or ``get_config(preset)`` gives.

    Args:
      spec: a file or the name of a configuration of this project, as ``find`` takes it.

    Raises:
      UserError: no such file, or it fails; the line names the file and the line in it.
    """
    file, preset = _parts(spec)
    path = str(find(file))
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise UserError(f"{path} defines no get_config(); see configs/mini_1shot.py")
        config = get_config(preset) if preset else get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the file is the user's code and may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line, cause = (lines or ["?"])[-1], reason(error)
        if isinstance(error, SyntaxError):
            line, cause = error.lineno, error.msg
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {cause}") from None
    if isinstance(config, FrozenConfigDict):
        config = ConfigDict(config.to_dict())
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returns a {type(config).__name__}; expected a ConfigDict")
    check_fields(config)
    return config


def command_of(config: ConfigDict) -> str:
    """The command line that trains a run of ``config``: the nearest configuration of this project, and overrides.

    Where the data lie and the number of devices are left out. A folder or a file in ``train.start_from`` is named
    as one in ``runs/``.

    Raises:
      UserError: no configuration of this project has the learner and the model.
    """
    ignored = ("data.dir", "parallel.")
    wanted = {field: value for field, value in fields(config).items() if not field.startswith(ignored)}
    changes: dict[str, dict[str, Any]] = {}
    names, pretraining = list(packaged()), "pretrain" in config
    names += [f"{name}:authors" for name in names if name.startswith("baselines/")]  # they have other models
    for name in names:
        known = load_config(name)
        theirs = fields(known)
        if (
            ("pretrain" in known) == pretraining
            and all(theirs.get(field) == wanted[field] for field in ("learner.name", "model.name"))
            and wanted.keys() <= theirs.keys()
        ):
            changes[name] = {field: value for field, value in wanted.items() if value != theirs[field]}
    if not changes:
        raise UserError(f"no configuration of this project has {config.learner.name} on {config.model.name}")
    name = min(changes, key=lambda name: len(changes[name]))
    words = ["cxgrad", "pretrain" if pretraining else "train", f"--config={name}"]
    for field, value in changes[name].items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if field == "train.start_from" and text and text not in bundled() and not text.startswith(HUB):
            text = f"runs/{Path(text).name}"
        words.append(f"--config.{field}={text.lower() if isinstance(value, bool) else text}")
    return " ".join(words)
