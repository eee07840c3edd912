"""Files that are written whole or not at all."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cxgrad_jax.errors import UserError, reason

# A folder is tried with this many bytes. Most files that are written there are smaller.
_PROBE = 64 << 10


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, a kill or a power loss finds the old content or the new, never a part.

    Raises:
      UserError: the file cannot be written. The line names it and the cause, and the old content stays.
    """
    raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content  # odd names of files
    temporary = path.parent / f".{path.name}.tmp"
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # such as /dev/stdout
            path.write_bytes(raw)
            return
        if path.is_symlink():  # it stays one
            path = path.resolve()
            temporary = path.parent / f".{path.name}.tmp"
        with temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: no file has such a name
        _remove(temporary)
        raise UserError(f"{path} cannot be written: {reason(error)}") from None
    except BaseException:  # an interruption
        _remove(temporary)
        raise


def check_writable(folder: Path) -> None:
    """Makes a folder and tries to write a file there, before the work whose result it is to receive.

    Raises:
      UserError: the folder cannot be written. The line names it and the cause.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be written: {reason(error)}") from None


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as JSON, whole or not at all.

    Raises:
      UserError: the file cannot be written.
      ValueError: a number is not finite; JSON has no such number.
    """
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def csv_text(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Makes a CSV table of ``head`` and ``lines``. None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if cell is None else cell for cell in line] for line in lines)
    return text.getvalue()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except (OSError, ValueError):
        pass
