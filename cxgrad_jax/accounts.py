"""Users and groups without an account, as in some containers and on disks that other machines share."""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock


def shared(change: Callable[[], AbstractContextManager[Any]]) -> Callable[[], AbstractContextManager[None]]:
    """Lets threads share a change of the process: the first to enter makes it, and the last to leave takes it back."""
    lock, inside, changes = threading.Lock(), [0], contextlib.ExitStack()

    @contextlib.contextmanager
    def entered() -> Iterator[None]:
        with lock:
            if not inside[0]:
                changes.enter_context(change())
            inside[0] += 1
        try:
            yield
        finally:
            with lock:
                inside[0] -= 1
                if not inside[0]:
                    changes.close()

    return entered


@shared
@contextlib.contextmanager
def accounts_without_names() -> Iterator[None]:
    """Lets tfds and Orbax reach files whose user or group id has no account.

    Both use etils, which looks up the owner's name of every file whose size it is asked for. Python raises KeyError if
    there is no such account. Inside this context the number takes the place of the name.
    """
    try:
        import grp
        import pwd
    except ImportError:  # Windows, where etils does not ask
        yield
        return
    with (
        mock.patch.object(pwd, "getpwuid", _or_number(pwd.getpwuid, "pw_name")),
        mock.patch.object(grp, "getgrgid", _or_number(grp.getgrgid, "gr_name")),
    ):
        yield


def _or_number(look_up: Callable[[int], Any], attribute: str) -> Callable[[int], Any]:
    def named(number: int) -> Any:
        try:
            return look_up(number)
        except KeyError:
            # matplotlib asks for the home folder. "~" means that none is known, as for any id without an account.
            return types.SimpleNamespace(**{attribute: str(number), "pw_dir": "~"})

    return named
