"""Whether configurations can stand side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxgrad_jax.errors import UserError
from cxgrad_jax.training.config import ConfigDict, value_at


def check_alike(configs: Mapping[str, ConfigDict], fields: Sequence[str], advice: str) -> None:
    """Refuses configurations that differ in one of ``fields``.

    Args:
      configs: the configurations by the name in the message.
      fields: the dotted paths of the fields.
      advice: the end of the message. ``{field}`` in it becomes the field that differs.

    Raises:
      UserError: a configuration differs from the first. The line names both and the field.
    """
    first, expected_of = next(iter(configs.items()))
    for name, config in configs.items():
        for field in fields:
            ours, expected = _value(config, field), _value(expected_of, field)
            if ours != expected:
                told = f"{field} is {ours!r} in {name}, but {expected!r} in {first}"
                raise UserError(f"{told}; {advice.format(field=field)}")


def _value(config: ConfigDict, field: str) -> Any:
    value = value_at(config, field)
    return value or config.data.name if field == "evaluation.data" else value  # empty: the data trained on
