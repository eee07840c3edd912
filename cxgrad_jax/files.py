"""Files that are written whole or not at all."""

import csv
import io
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cxgrad_jax.errors import UserError, reason

# A folder is tried with this many bytes. Most files that are written there are smaller.
_PROBE = 64 << 10
# Linux has the open files of a process as /proc/PROCESS/fd/NUMBER. Other systems have those of their own process alone.
_OPEN_FILE = re.compile(r"(?:/dev|/proc/(?P<process>\d+)(?:/task/\d+)?)/fd/(?P<number>\d+)")
_MOST_LINKS = 40  # as Linux follows


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, a kill or a power loss finds the old content or the new, never a part.

    A path that ``is_stream`` is written to where it stands, and is not replaced.

    Raises:
      UserError: the file cannot be written. The line names it and the cause, and the old content stays.
    """
    raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content  # odd names of files
    temporary = _beside(path)
    try:
        if is_stream(path):
            _write_stream(path, raw)
            return
        if path.is_symlink():  # it stays one
            path = path.resolve()
            temporary = _beside(path)
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


def is_stream(path: Path) -> bool:
    """Whether a path is a pipe or a device, or leads to a file that a process has open, as ``/dev/stdout`` does.

    The shell may have opened that file to append to it, as in ``>> log.txt``. Replacing it would lose what it holds.
    """
    special = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    return special or _open_file(path) is not None


def refuse_forbidden(path: Path) -> None:
    """Refuses a path that may not be looked at, which ``os.path`` calls missing.

    Raises:
      UserError: a folder on the way may not be entered.
    """
    try:
        path.stat()
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
    except (OSError, ValueError):  # it is missing, or no file has such a name
        pass


def check_writable(folder: Path, size: int = _PROBE) -> None:
    """Makes a folder and tries to write a file there, before the work whose result it is to receive.

    Args:
      folder: the folder.
      size: the number of bytes of the file.

    Raises:
      UserError: the folder cannot be written. The line names it and the cause.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size))
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


def _beside(path: Path) -> Path:
    """A name beside a file that no other writer of the same file takes."""
    return path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.tmp"


def _open_file(path: Path) -> re.Match[str] | None:
    """The match of ``_OPEN_FILE`` where a path or a link that it follows is an open file of a process."""
    for _ in range(_MOST_LINKS):
        place = os.path.join(os.path.realpath(path.parent), path.name)
        found = _OPEN_FILE.fullmatch(place)
        if found or not os.path.islink(place):
            return found
        path = Path(os.path.dirname(place), os.readlink(place))
    return None


def _write_stream(path: Path, raw: bytes) -> None:
    """Writes where a stream stands. A file that this process has open keeps its position for what is printed next."""
    opened = _open_file(path)
    own = opened and opened["process"] in (None, str(os.getpid()))
    if own and sys.stdout:
        sys.stdout.flush()  # what was printed before comes first
    with open(int(opened["number"]), "wb", closefd=False) if opened and own else path.open("ab") as file:
        file.write(raw)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except (OSError, ValueError):
        pass
