"""Users and groups without an account, as in some containers and on disks that other machines share."""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock


def shared(change: Callable[[], AbstractContextManager[Any]]) -> Callable[[], AbstractContextManager[None]]:
    """A change of the whole process that threads share: who enters first makes it, who leaves last takes it back."""
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
    """Lets etils, with which tfds and Orbax reach files, work for a user or group id that has no account.

    etils looks up the owner's name of every file whose size it is asked for. Python raises KeyError where there is no
    such account; in here the number is the name.
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
            # With this home, the path of a home folder is not known, as without an account: matplotlib asks for it.
            return types.SimpleNamespace(**{attribute: str(number), "pw_dir": "~"})

    return named
