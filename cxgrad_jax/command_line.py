"""What the programs' command lines share: parser, overrides, log, exit statuses, and the start of the process."""

import argparse
import ast
import difflib
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from logging import root
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags, logging

from cxgrad_jax import runtime
from cxgrad_jax.arguments import as_path
from cxgrad_jax.errors import AlreadyTold, Interrupted, UserError, reason
from cxgrad_jax.streams import make_lasting, status_of_streams
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.checks import expected_fields
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.orbax_log import is_worth_reading

VERBOSITIES = ("debug", "info", "warning", "error")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are a ``UserError``."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


class _SetVerbosity(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        logging.set_verbosity(values)


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Adds ``--verbosity=LEVEL``, which takes effect when it is read."""
    parser.add_argument(
        "--verbosity", choices=VERBOSITIES, action=_SetVerbosity, default=argparse.SUPPRESS, metavar="LEVEL",
        help="least level of the lines of the log: debug, info, warning or error",
    )  # fmt: skip


def override(config: ConfigDict, arguments: list[str], flags: argparse.ArgumentParser) -> argparse.Namespace:
    """Sets the fields that ``--config.FIELD=VALUE`` among ``arguments`` name.

    ``--config.model.name=MODULE.CLASS`` and ``--config.learner.name=MODULE.FUNCTION`` name the user's own. Their fields
    take the place of those of the section.

    Args:
      config: the configuration, which is changed in place.
      arguments: the command line.
      flags: the parser of all other flags.

    Returns:
      What ``flags`` reads from ``arguments``.

    Raises:
      UserError: an unknown flag or field, or a value of the wrong type.
    """
    makers = {"learner": configuration.learner_config, "model": configuration.model_config}
    for section, name in parts_named(arguments).items():
        if "." in name and name != config[section].name:
            config[section] = makers[section](name)
    fields = configuration.fields(config)
    defaults = configuration.fields(expected_fields(config))  # they have the types: a value may be None or whole
    everything = Parser(
        usage=flags.usage,
        parents=[flags],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=44),
    )
    group = everything.add_argument_group("fields of the configuration, and their values without the flag")
    for path, value in fields.items():
        optional: dict[str, Any] = {"nargs": "?", "const": True} if isinstance(value, bool) else {}
        shown = repr(value).replace("%", "%%")
        group.add_argument(
            f"--config.{path}", type=_reader(defaults.get(path, value)), metavar="VALUE", help=shown, **optional
        )
    given, unknown = everything.parse_known_args(arguments)
    if unknown:
        name = unknown[0].split("=")[0]
        close = difflib.get_close_matches(name, everything._option_string_actions, n=1)
        hint = f"did you mean {close[0]}?" if close else "--help lists what there is"
        raise UserError(f"argument {name} is unknown; {hint}")
    overrides = {path: vars(given)[f"config.{path}"] for path in fields if f"config.{path}" in vars(given)}
    with config.ignore_type():  # of the value that is replaced
        config.update_from_flattened_dict(overrides)
    return given


def parts_named(arguments: Sequence[str]) -> dict[str, str]:
    """The ``learner`` and the ``model`` that flags name, which may be modules of the user's own."""
    parser = Parser(add_help=False, allow_abbrev=False)
    for section in ("learner", "model"):
        parser.add_argument(f"--config.{section}.name", dest=section)
    given = vars(parser.parse_known_args(arguments)[0])
    return {section: name for section, name in given.items() if name is not None}


def check_several_runs(given: argparse.Namespace, others: Sequence[str], what: str) -> None:
    """Checks the flags of a program that trains several runs.

    Args:
      given: its own flags, ``workdir`` and ``seeds`` among them.
      others: the flags that it does not know.
      what: what the runs are for, for the message.

    Raises:
      UserError: there is no folder, or the seeds are chosen twice.
    """
    if not given.workdir or not given.workdir.name:
        raise UserError(f"--workdir is missing; give the folder of the {what}, such as --workdir=runs/{what}")
    if given.seeds and any(flag.startswith("--config.seed=") for flag in others):
        raise UserError("--seeds chooses the seeds 0 to N - 1; leave --config.seed out")


def overrides(given: Sequence[str], configs: Iterable[ConfigDict], others: str) -> Callable[[ConfigDict], None]:
    """Reads ``--config.FIELD=VALUE`` for several configurations.

    Args:
      given: the flags that the program itself does not know.
      configs: the configurations.
      others: the program's own flags, for the message.

    Returns:
      A function that takes a configuration and sets those of the fields that it has.

    Raises:
      UserError: a flag is not ``--config.FIELD=VALUE``, or none of the configurations has its field.
    """
    known = {f"--config.{field}" for config in configs for field in configuration.fields(config)}
    for flag in given:
        name = flag.split("=")[0]
        if not flag.startswith("--config.") or "=" not in flag:
            raise UserError(f"argument {name} is unknown; expected {others}, --config.FIELD=VALUE")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"argument {name} is unknown; no configuration of these has it{hint}")

    def change(config):
        own = {f"--config.{field}" for field in configuration.fields(config)}
        override(config, [flag for flag in given if flag.split("=")[0] in own], Parser(add_help=False))

    return change


def _reader(value: Any) -> Callable[[str], Any]:
    """The function that turns a flag's text into a value of the type of ``value``."""
    expected = configuration.expected_type(value)

    def read(text: str) -> Any:
        try:
            if isinstance(value, bool):
                return {"true": True, "false": False}[text.lower()]
            if isinstance(value, tuple):
                inner = text.strip("()[], ")
                return tuple(ast.literal_eval(f"({inner},)")) if inner else ()
            if value is None:
                return None if text in ("", "None") else text
            return type(value)(text)
        except (ValueError, KeyError, SyntaxError):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None

    return read


def a_path(text: str) -> Path:
    """Reads a flag's text as a path that may begin with ``~``, for ``type=`` of an argument."""
    try:
        path = as_path("the path", text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path if path.name else path.absolute()  # "." has no name


def at_least_one(text: str) -> int:
    """Reads a flag's text as a whole number of at least 1, for ``type=`` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, at least 1")
    return int(text)


def exit_status(action: Callable[[], object]) -> int:
    """Runs ``action`` and returns the exit status.

    It is 0 when done. After a user's mistake it is 2, after an interruption 130, each with one line on stderr.
    """
    flags.FLAGS.mark_as_parsed()  # absl warns of logging before its flags are parsed, although there are none
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(is_worth_reading)
    try:
        action()
    except AlreadyTold:
        return 2
    except UserError as error:
        print(f"cxgrad_jax: {error}", file=sys.stderr)
        return 2
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = (str(error).strip() or "MemoryError").splitlines()[0]
        print(
            f"cxgrad_jax: memory does not suffice ({first[:150]}); lower parallel.tasks_per_chunk, train.meta_batch or "
            "what makes the model or the images large",
            file=sys.stderr,
        )
        return 2
    except PermissionError as error:
        if error.filename is None:
            raise
        print(
            f"cxgrad_jax: {error.filename} cannot be used: {reason(error)}; choose another path, or change its owner "
            "or mode",
            file=sys.stderr,
        )
        return 2
    except (Interrupted, KeyboardInterrupt) as interruption:
        print(f"cxgrad_jax: {str(interruption) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def start(run: Callable[[list[str]], int]) -> NoReturn:
    """Sets the process up, runs a program with the arguments of the command line, and ends with its exit status.

    Args:
      run: the program. It takes the arguments and returns the exit status.
    """
    runtime.restart_with_allocator()
    make_lasting()
    root.handlers.clear()  # Orbax gives the root logger a handler when it is imported, which prints each line again
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = sys.argv[1:]
    sys.exit(status_of_streams(exit_status(lambda: _keep_compiled_programs(arguments)) or run(arguments)))


def _keep_compiled_programs(arguments: Sequence[str]) -> None:
    """Turns the cache on, with messages at the verbosity that ``arguments`` ask for."""
    parser = Parser(add_help=False, allow_abbrev=False)
    add_verbosity(parser)
    parser.parse_known_args(arguments)
    runtime.keep_compiled_programs()
