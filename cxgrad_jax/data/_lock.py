"""A lock that lets one process at a time work in a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from cxgrad_jax import locks


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context that one process at a time can enter.

    If the system or the file system has no locks, every process can enter.
    """
    with path.open("w") as file:
        try:
            if not locks.take(file):
                logging.warning("another process is preparing %s: waiting for it", path.parent)
                locks.take(file, wait=True)
        except OSError as error:
            logging.warning("%s cannot be locked (%s): do not prepare it twice at once", path.parent, error)
        yield
