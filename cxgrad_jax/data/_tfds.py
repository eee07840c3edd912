"""What tfds needs around it, told without importing it."""

import contextlib
import importlib.util
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from cxgrad_jax.errors import UserError

# From what pip installs to what Python imports. tfds reads and writes ArrayRecord files with the last two.
_NEEDED = {
    "tensorflow-datasets": "tensorflow_datasets",
    "array_record": "array_record",
    "importlib_resources": "importlib_resources",
}


def require_tfds() -> None:
    """Raises UserError with the pip command unless tfds and what it needs are installed."""
    missing = [pip for pip, module in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: run `pip install {' '.join(missing)}`")


@contextlib.contextmanager
def accounts_without_names() -> Iterator[None]:
    """Lets tfds work for a user or group id that has no account, as in some containers.

    tfds asks for the size of a file through etils, which looks up the owner's name as well and raises KeyError where
    there is none.
    """
    try:
        import grp
        import pwd
    except ImportError:  # Windows, where etils does not ask
        yield
        return

    def or_number(look_up: Callable[[int], Any], attribute: str) -> Callable[[int], Any]:
        def named(number: int) -> Any:
            try:
                return look_up(number)
            except KeyError:
                # With this home, the path of a home folder is not known, as without an account: matplotlib asks for it.
                return types.SimpleNamespace(**{attribute: str(number), "pw_dir": "~"})

        return named

    with (
        mock.patch.object(pwd, "getpwuid", or_number(pwd.getpwuid, "pw_name")),
        mock.patch.object(grp, "getgrgid", or_number(grp.getgrgid, "gr_name")),
    ):
        yield
