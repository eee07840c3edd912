"""A lock on an open file, which one process at a time holds. The system opens the lock of a process that dies.

A lock file of our own would stay behind after a kill, and block the folder for good.
"""

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows, which has no such locks
    fcntl = None


def take(file: IO[Any], wait: bool = False) -> bool:
    """Takes the lock of an open file until it is closed.

    Args:
      file: the file.
      wait: whether to wait while another process holds the lock.

    Returns:
      False if another process holds the lock. True if this one does, or if the system has no locks.

    Raises:
      OSError: the file system has no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
