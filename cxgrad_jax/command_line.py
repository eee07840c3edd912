"""What the programs' command lines share: the parser, the log, the exit statuses, and how their process starts."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from logging import LogRecord
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging

from cxgrad_jax import runtime
from cxgrad_jax.errors import Interrupted, UserError

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


def exit_status(action: Callable[[], None]) -> int:
    """Runs ``action``; 0, or after one line on stderr 2 for a user's mistake and 130 for an interruption."""
    flags.FLAGS.mark_as_parsed()  # absl would warn of logging before its own flags are parsed; there are none
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(_is_worth_reading)
    try:
        action()
    except UserError as error:
        print(f"cxgrad_jax: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as interruption:
        print(f"cxgrad_jax: {str(interruption) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def _is_worth_reading(record: LogRecord) -> bool:
    """Whether a line of the log is shown. Orbax also warns of what is done on purpose; ``--verbosity=info`` has it."""
    ours = "orbax" not in Path(record.pathname).parts
    return ours or record.levelno >= logging.converter.STANDARD_ERROR or logging.get_verbosity() > logging.WARNING


def start(run: Callable[[list[str]], int]) -> NoReturn:
    """Sets the process up, runs a program with the arguments of the command line, and ends with its exit status.

    Args:
      run: the program; takes the arguments and returns the exit status.
    """
    runtime.restart_with_allocator()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = sys.argv[1:]
    sys.exit(exit_status(lambda: _keep_compiled_programs(arguments)) or run(arguments))


def _keep_compiled_programs(arguments: Sequence[str]) -> None:
    """Turns the cache on, and logs what it has to say at the verbosity that ``arguments`` ask for."""
    parser = Parser(add_help=False, allow_abbrev=False)
    add_verbosity(parser)
    parser.parse_known_args(arguments)
    runtime.keep_compiled_programs()
