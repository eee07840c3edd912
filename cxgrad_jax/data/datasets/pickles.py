"""Reads arrays and plain containers from pickles, and runs no code from them."""

import pickle
import warnings
from typing import Any

import numpy as np

from cxgrad_jax.data.datasets.archives import Member
from cxgrad_jax.errors import UserError, reason

# A pickled array or number of NumPy needs no more, under the module names of NumPy 1 and 2 and of all protocols.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


# This is the unpickler in Python. The one in C reserves memory for as many objects as a damaged file claims to have.
class _ArrayUnpickler(pickle._Unpickler):
    """Builds plain containers and NumPy arrays, and calls nothing else that a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module, name)


def read_pickle(member: Member, expected: str) -> Any:
    """Reads a pickle without running code from it. The keys of a dict become text.

    Args:
      member: the file.
      expected: the end of an error message, which says what was expected.

    Raises:
      UserError: the pickle is damaged, or asks for anything but arrays.
    """
    try:
        with member.open() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of NumPy warn of what older ones wrote
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises exceptions of many kinds
        raise UserError(f"{member.name} is not a readable pickle ({reason(error)}); {expected}") from error
    return {text(key): value for key, value in content.items()} if isinstance(content, dict) else content


def read_dict(member: Member, expected: str) -> dict[str, Any]:
    """Reads a pickle that holds a dict; raises UserError if it holds anything else."""
    content = read_pickle(member, expected)
    if not isinstance(content, dict):
        raise UserError(f"{member.name} holds a {type(content).__name__}, not a dict; {expected}")
    return content


def field(content: dict[str, Any], name: str, expected: str) -> Any:
    """A value of a dict; raises UserError if it is missing."""
    if name not in content:
        raise UserError(f"the pickles lack {name!r}: wrong archive; {expected}")
    return content[name]


def row_numbers(value: Any, below: int) -> np.ndarray | None:
    """The value as integers ``[N]`` from 0 to ``below - 1``, or None if it is of another kind."""
    try:
        numbers = np.asarray(value, None if len(value) else int)
    except Exception:  # what a pickle holds may be anything
        return None
    fits = numbers.ndim == 1 and numbers.dtype.kind in "iu" and ((numbers >= 0) & (numbers < below)).all()
    return numbers if fits else None


def strings(value: Any) -> list[str] | None:
    """The value as a list of strings, or None if it is of another kind."""
    return [text(element) for element in value] if isinstance(value, list | tuple | np.ndarray) else None


def text(value: Any) -> str:
    """A string of a pickle or an array. Python 2 and NumPy also have strings that are bytes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
