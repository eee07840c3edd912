"""``python -m cxgrad_jax.main [--config=configs/NAME.py] [--workdir=DIR] [--mode=MODE] [--config.FIELD=VALUE …]``

``--mode=train`` (or resume) and test; ``evaluate`` a run; ``analyse`` some: ``--workdir=DIR`` once for each. Without
``--workdir`` the run lies in ``runs/NAME``, NAME being that of the configuration.

Exit status: 0 done, 2 a user's mistake (one line on stderr), 130 interrupted (checkpoint saved), 1 a defect.
"""

import argparse
import ast
import difflib
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import logging

from cxgrad_jax import runtime
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.checks import check, check_fields
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.interruption import Interrupted
from cxgrad_jax.training.testing import evaluate_run
from cxgrad_jax.training.train import train
from cxgrad_jax.training.workdir import read_config

MODES = ("train", "evaluate", "analyse")
OWN_CODE = ("--config.learner.name=", "--config.model.name=")  # flags that may name a module of the user's own
DEFAULT = "glyphs_1shot"  # what the embedded default is called


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are a ``UserError``."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parse(arguments: list[str]) -> tuple[ConfigDict, argparse.Namespace]:
    """Reads the command line: the configuration with its overrides, and the other flags.

    Without ``--config`` the configuration is the embedded default, or in the other modes the (first) run's own. In
    ``--mode=analyse`` it has a section ``analysis`` more.

    Raises:
      UserError: an unknown flag, field or file, or a value of the wrong type.
    """
    flags = Parser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config", metavar="FILE[:PRESET]", help="configuration; without: glyphs, or the run's own")
    flags.add_argument(
        "--workdir", type=Path, action="append", metavar="DIR",
        help="folder of the run: configuration, metrics, checkpoints, results; several times in --mode=analyse",
    )  # fmt: skip
    flags.add_argument(
        "--mode", choices=MODES, default="train", help="train (or resume) and test; test only; or analyse runs"
    )
    flags.add_argument("--distributed", action="store_true", help="one of several processes, found on a cluster or by:")
    flags.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, the same in all processes")
    flags.add_argument("--num_processes", type=int, metavar="N")
    flags.add_argument("--process_id", type=int, metavar="I", help="0 to N - 1")
    given = flags.parse_known_args(arguments)[0]
    if given.config:
        config = load_config(given.config)
    elif given.mode != "train":
        workdir = given.workdir[0] if given.workdir else Path("runs", DEFAULT)
        config = read_config(workdir, named=[flag.partition("=")[2] for flag in arguments if flag.startswith(OWN_CODE)])
    else:
        config = configuration.glyphs_config()
    if given.mode == "analyse":
        config.analysis = configuration.analysis_config()

    given = override(config, arguments, flags)
    given.workdir = given.workdir or [Path("runs", config_name(given.config) if given.config else DEFAULT)]
    if not all(workdir.name for workdir in given.workdir):
        raise UserError("--workdir is empty; give the folder of the run, such as --workdir=runs/first")
    if len(given.workdir) > 1 and given.mode != "analyse":
        raise UserError(f"--workdir is given {len(given.workdir)} times; only --mode=analyse takes several runs")
    return config, given


def override(config: ConfigDict, arguments: list[str], flags: argparse.ArgumentParser) -> argparse.Namespace:
    """Sets the fields that ``--config.FIELD=VALUE`` among ``arguments`` name, and returns what ``flags`` reads of them.

    Raises:
      UserError: an unknown flag or field, or a value of the wrong type.
    """
    fields = configuration.fields(config)
    everything = Parser(
        usage="python -m cxgrad_jax.main --workdir=DIR [--config=FILE] [--mode=MODE] [--config.FIELD=VALUE ...]",
        parents=[flags],
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=44),
    )
    group = everything.add_argument_group("fields of the configuration, and their values without the flag")
    for path, value in fields.items():
        optional: dict[str, Any] = {"nargs": "?", "const": True} if isinstance(value, bool) else {}
        shown = repr(value).replace("%", "%%")
        group.add_argument(f"--config.{path}", type=_reader(value), metavar="VALUE", help=shown, **optional)
    given, unknown = everything.parse_known_args(arguments)
    if unknown:
        name = unknown[0].split("=")[0]
        close = difflib.get_close_matches(name, everything._option_string_actions, n=1)
        hint = f"did you mean {close[0]}?" if close else "--help lists what there is"
        raise UserError(f"argument {name} is unknown; {hint}")
    overrides = {path: vars(given)[f"config.{path}"] for path in fields}
    config.update_from_flattened_dict({path: value for path, value in overrides.items() if value is not None})
    return given


def _reader(value: Any) -> Callable[[str], Any]:
    """The function that turns a flag's text into a value of the type of ``value``."""
    expected = configuration.expected_type(value)

    def read(text: str) -> Any:
        try:
            if isinstance(value, bool):
                return {"true": True, "false": False}[text.lower()]
            if isinstance(value, tuple):
                return tuple(ast.literal_eval(f"({text.strip('()[], ')},)"))
            return text if value is None else type(value)(text)
        except (ValueError, KeyError, SyntaxError):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None

    return read


def config_name(spec: str) -> str:
    """How the run of ``FILE`` or ``FILE:PRESET`` is called: ``"mini_1shot"`` or ``"mini_1shot-paper"``."""
    file, _, preset = spec.partition(":")
    return Path(file).stem + (f"-{preset}" if preset else "")


def load_config(spec: str) -> ConfigDict:
    """The configuration of ``FILE`` or ``FILE:PRESET``: what its ``get_config()`` or ``get_config(preset)`` gives.

    Raises:
      UserError: no such file, or it fails; the line names the file and the line in it.
    """
    file, _, preset = spec.partition(":")
    if not Path(file).is_file():
        raise UserError(f"--config: {file} does not exist; expected a file such as configs/mini_1shot.py")
    try:
        get_config = runpy.run_path(file).get("get_config")
        if get_config is None:
            raise UserError(f"{file} defines no get_config(); see configs/mini_1shot.py")
        config = get_config(preset) if preset else get_config()
    except UserError:
        raise
    except Exception as error:  # the file is the user's code and may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        line, reason = (lines or ["?"])[-1], " ".join(str(error).split())
        if isinstance(error, SyntaxError):
            line, reason = error.lineno, error.msg
        raise UserError(f"{file}, line {line}: {type(error).__name__}: {reason}") from None
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config() returns a {type(config).__name__}; expected a ConfigDict")
    check_fields(config)
    return config


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        config, given = parse(arguments)
        if given.distributed or given.coordinator:
            jax.distributed.initialize(given.coordinator, given.num_processes, given.process_id)
        else:
            runtime.use_cores_as_devices()
        options = config.get("analysis")
        if options:
            del config.analysis
        check(config)
        if options:
            from cxgrad_jax.report.analysis import analyse  # with matplotlib, which training does not need

            print(f"report: {analyse(config, options, given.workdir)}")
            return
        (workdir,) = given.workdir
        (train if given.mode == "train" else evaluate_run)(config, workdir)

    return exit_status(action)


def exit_status(action: Callable[[], None]) -> int:
    """Runs ``action``; 0, or after one line on stderr 2 for a user's mistake and 130 for an interruption."""
    logging.set_verbosity(logging.ERROR)  # Orbax tells of every file that it opens
    try:
        action()
    except UserError as error:
        print(f"cxgrad_jax: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as interruption:
        print(f"cxgrad_jax: {str(interruption) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    runtime.restart_with_allocator()
    runtime.keep_compiled_programs()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))
