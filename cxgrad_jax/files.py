"""Files that are written whole or not at all."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cxgrad_jax.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, a kill or a power loss finds the old content or the new, never a part.

    Raises:
      UserError: the file cannot be written; the line names it and the cause. What was there stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as JSON, whole or not at all.

    Raises:
      UserError: as ``write_whole``.
      ValueError: a number is not finite; JSON has no such number.
    """
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def csv_text(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A CSV table: ``head``, then ``lines``. None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if cell is None else cell for cell in line] for line in lines)
    return text.getvalue()
