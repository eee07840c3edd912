"""``metrics.jsonl``: the record of a run, with one JSON object on each line."""

import json
import math
import sys
from pathlib import Path
from typing import Any

from absl import logging

from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.files import write_whole


class MetricsFile:
    """Appends records, each with the ``"iteration"`` after which it was written.

    Opening the file drops records beyond ``iteration``, from which the run goes on, and lines that are not records. If
    the state at ``iteration`` is not validated, a validation's record of it is dropped, too. A number that is not
    finite is written as null, because JSON has no such number.

    Raises:
      UserError: the file cannot be written.
    """

    def __init__(self, path: Path, iteration: int, is_validated: bool = True):
        def is_kept(record):
            is_of_validation = any(name.startswith("val_") for name in record)
            return record["iteration"] < iteration + (is_validated or not is_of_validation)

        self._path = path
        kept = filter(is_kept, read_metrics(path))
        write_whole(path, "".join(_line(record) for record in kept))

    def write(self, **record: Any) -> None:
        """Appends one record."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(record))
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {reason(error)}") from None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a ``metrics.jsonl``, whose values are numbers or None. No file means no records.

    A line that is not a record is left out. A kill may cut the last one short, and a disk may lose one in the middle.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
    records, lost = [], 0
    for line in text.splitlines():
        try:
            record = json.loads(line)
            if type(record["iteration"]) is not int or not all(map(_is_number, record.values())):
                raise ValueError
            records.append(record)
        except (ValueError, TypeError, KeyError, RecursionError):
            lost += bool(line.strip())
    if lost > 1:
        logging.warning("%s has %d lines that are not records; they are left out", path, lost)
    return records


def _is_number(value: Any) -> bool:
    """Whether a value is a number within the range of a float, or null for a number that was not finite."""
    return value is None or type(value) in (int, float) and abs(value) <= sys.float_info.max


def _line(record: dict[str, Any]) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"
