"""A lock that lets one process at a time work in a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from absl import logging

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context that one process at a time can enter. The system opens the lock of a process that dies.

    If the system or the file system has no such lock, every process can enter. A lock file of our own would stay behind
    after a kill, and block the folder for good.
    """
    with path.open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.warning("another process is preparing %s: waiting for it", path.parent)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                logging.warning("%s cannot be locked (%s): do not prepare it twice at once", path.parent, error)
        yield
