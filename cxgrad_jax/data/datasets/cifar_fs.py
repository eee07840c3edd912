"""CIFAR-FS (Bertinetto et al., 2019): the 100 classes of CIFAR-100 with all their 600 images, split 64/16/20."""

import functools
import io
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.data.datasets.archives import Files
from cxgrad_jax.data.datasets.builder import FewShotBuilder, ImageSize, Index, require
from cxgrad_jax.data.datasets.images import rgb_pixels
from cxgrad_jax.errors import UserError

IMAGES_PER_CLASS = 600
EXPECTED = "expected cifar-100-python.tar.gz"

# All that a pickled array needs, under the module names of numpy 1 and 2 and of all pickle protocols.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


def class_lists() -> dict[str, list[str]]:
    """The classes of every split."""
    return catalogue.class_lists("cifar_fs")


class CifarFs(FewShotBuilder, skip_registration=True):
    """Reads ``cifar-100-python.tar.gz``: the pickles ``train``, ``test`` and ``meta``."""

    BUILDER_CONFIGS = [ImageSize(32)]

    def _index(self, files: Files) -> Index:
        pickles = {PurePosixPath(name).name: reader for name, reader in files.items()}
        for name in ("meta", "train", "test"):
            if name not in pickles:
                raise UserError(f"cifar-100-python/{name} is missing: wrong or incomplete archive; {EXPECTED}")
        class_names = [_text(name) for name in _field(read_pickle(pickles["meta"](), "meta"), "fine_label_names")]
        images: defaultdict[str, dict[str, Callable[[], Any]]] = defaultdict(dict)
        for subset in ("train", "test"):
            for label, name, image in _read_subset(read_pickle(pickles[subset](), subset), subset, len(class_names)):
                images[class_names[label]][name] = functools.partial(np.asarray, image)
        lists = class_lists()
        for split in SPLITS:
            for name in lists[split]:
                require(images[name], IMAGES_PER_CLASS, name, EXPECTED)
        return {split: {name: images[name] for name in lists[split]} for split in SPLITS}

    def _pixels(self, raw: Any, name: str) -> np.ndarray:
        return rgb_pixels(Image.fromarray(raw), self.image_size)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain containers and numpy arrays, and calls nothing else that a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module, name)


def read_pickle(data: bytes, name: str) -> dict[str, Any]:
    """Reads one of CIFAR's pickled dicts without running code from it; keys become text.

    Raises:
      UserError: the pickle is damaged, is no dict, or asks for anything but arrays.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"cifar-100-python/{name} is not a readable pickle ({error}); {EXPECTED}") from error
    if not isinstance(content, dict):
        raise UserError(f"cifar-100-python/{name} holds a {type(content).__name__}, expected a dict; {EXPECTED}")
    return {_text(key): value for key, value in content.items()}


def _read_subset(content: dict[str, Any], subset: str, num_classes: int) -> list[tuple[int, str, np.ndarray]]:
    """Label, file name and uint8 ``[32, 32, 3]`` image of every row of ``train`` or ``test``."""
    data, labels = _field(content, "data"), _field(content, "fine_labels")
    # The names only order the images of a class, and some re-packed archives lack them.
    names = [_text(name) for name in content.get("filenames", [f"{subset}_{i:05d}.png" for i in range(len(data))])]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise UserError(f"cifar-100-python/{subset}: the data are not uint8 [N, 3072]; {EXPECTED}")
    if not len(data) == len(labels) == len(names) or not all(0 <= label < num_classes for label in labels):
        raise UserError(f"cifar-100-python/{subset}: the labels or file names do not fit the data; {EXPECTED}")
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return list(zip(labels, names, images, strict=True))


def _field(content: dict[str, Any], name: str) -> Any:
    if name not in content:
        raise UserError(f"the pickles lack {name!r}: wrong archive; {EXPECTED}")
    return content[name]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
