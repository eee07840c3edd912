"""Reads the tensors of a PyTorch file of the legacy format. It runs no code of the file and needs no PyTorch.

Such a file (``torch.save`` before PyTorch 1.6) is five pickles and then the numbers. The pickles are a magic number,
the version of the protocol, facts about the machine, the state dict and the list of storages. A tensor is pickled as a
call of ``_rebuild_tensor_v2`` on a storage, which a "persistent id" names. The reader knows these few names and refuses
every other one.
"""

import collections
import pickle
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cxgrad_jax.errors import UserError, reason

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class Tensor(NamedTuple):
    """A tensor whose numbers are not read yet: storage, first element, sizes and strides, counted in elements."""

    storage: "Storage"
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


class Storage(NamedTuple):
    """The numbers of a tensor: their key, their dtype and how many there are."""

    key: str
    dtype: str
    size: int


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name, in the dtypes of the file.

    Raises:
      UserError: there is no such file, or it is not a legacy PyTorch file of tensors by name.
    """
    try:
        with Path(path).open("rb") as file:
            return _read(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a PyTorch file of weights") from None
    except Exception as error:  # a damaged or hostile pickle raises exceptions of many kinds
        raise UserError(f"{path} cannot be read as a legacy PyTorch file of tensors only ({reason(error)})") from None


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if _Unpickler(file).load() != MAGIC or _Unpickler(file).load() != PROTOCOL:
        raise ValueError("it does not begin with the magic number and protocol 1001")
    machine = _Unpickler(file).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    tensors, keys = _Unpickler(file).load(), _Unpickler(file).load()
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError("it holds no state dict")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    numbers = {key: _numbers(file, storages[key]) for key in keys}
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


# This is the unpickler in Python. The one in C reserves memory for as many objects as a damaged file claims to have.
class _Unpickler(pickle._Unpickler):
    """Builds plain containers and ``Tensor``s, and calls nothing else that a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered_dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, view = pid
        if (kind, view) != ("storage", None) or dtype not in STORAGES.values() or not isinstance(key, str):
            raise pickle.UnpicklingError("it has a storage of an unknown kind")
        return Storage(key, dtype, _count(count))


class _StateDict(collections.OrderedDict[str, Any]):
    """A state dict. PyTorch adds an attribute with versions to it, which is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


def _ordered_dict() -> _StateDict:
    return _StateDict()


def _tensor(storage: Any, offset: Any, sizes: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or len(sizes) != len(strides):
        raise pickle.UnpicklingError("it has a tensor without a storage")
    return Tensor(storage, _count(offset), tuple(map(_count, sizes)), tuple(map(_count, strides)))


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise pickle.UnpicklingError(f"it has a size of {value!r}")
    return value


def _numbers(file: BinaryIO, storage: Storage) -> np.ndarray:
    """Reads the numbers of a storage. In the file their count precedes them."""
    if int.from_bytes(file.read(8), "little") != storage.size:
        raise ValueError(f"storage {storage.key} has another size than its tensors say")
    raw = file.read(storage.size * np.dtype(storage.dtype).itemsize)
    return np.frombuffer(raw, storage.dtype, storage.size)  # it refuses too few bytes


def _array(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    steps = ((size - 1) * stride for size, stride in zip(tensor.sizes, tensor.strides, strict=True))
    if 0 not in tensor.sizes and tensor.offset + sum(steps) >= len(numbers):
        raise ValueError("a tensor reaches beyond its storage")
    if 0 in tensor.sizes:
        return np.zeros(tensor.sizes, numbers.dtype)
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.sizes, strides, writeable=False)
    return np.array(view)
