"""Overrides: ``--config.FIELD=VALUE``, a flag for every field of a configuration."""

import argparse
import ast
import difflib
from collections.abc import Callable
from typing import Any

from cxgrad_jax.command_line import Parser
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.config import ConfigDict


def override(config: ConfigDict, arguments: list[str], flags: argparse.ArgumentParser) -> argparse.Namespace:
    """Sets the fields that ``--config.FIELD=VALUE`` among ``arguments`` name, and returns what ``flags`` reads of them.

    Raises:
      UserError: an unknown flag or field, or a value of the wrong type.
    """
    fields = configuration.fields(config)
    everything = Parser(
        usage="python -m cxgrad_jax.main --workdir=DIR [--config=NAME] [--mode=MODE] [--config.FIELD=VALUE ...]",
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
