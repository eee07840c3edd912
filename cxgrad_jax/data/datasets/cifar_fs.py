"""CIFAR-FS (Bertinetto et al., 2019; https://arxiv.org/abs/1805.08136).

It has the 100 classes of CIFAR-100 with all their 600 images, split into 64, 16 and 20 classes.
"""

import functools
from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import facts
from cxgrad_jax.data.datasets.archives import Files, Index, Member, require
from cxgrad_jax.data.datasets.images import rgb_pixels
from cxgrad_jax.data.datasets.pickles import field, read_dict, row_numbers, strings
from cxgrad_jax.errors import UserError

FACTS = facts.Facts(
    title="CIFAR-FS (Bertinetto et al., 2019): CIFAR-100, training and test images together",
    classes=(64, 16, 20),
    images="60,000 (600 a class)",
    train_images=38_400,
    image_size=32,
    channels=3,
    resize=facts.RESIZE_RGB,
    origin="https://www.cs.toronto.edu/~kriz/cifar.html",
    archives=(
        facts.Archive(
            "cifar-100-python.tar.gz",
            169_001_437,
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
    ),
    also=("cifar100.zip, which the official CxGrad code uses (Bertinetto et al. published it)",),
)
IMAGES_PER_CLASS = 600
EXPECTED = "expected cifar-100-python.tar.gz"

pixels = rgb_pixels


def class_lists() -> dict[str, list[str]]:
    """The classes of every split."""
    return facts.class_lists("cifar_fs")


def index(files: Files, image_size: int) -> Index:
    """Reads ``cifar-100-python.tar.gz``, its pickles ``train``, ``test`` and ``meta``, or a folder of PNGs a class."""
    lists = class_lists()
    images = _png_images(files, lists) or _pickled_images(files)
    for split in SPLITS:
        for name in lists[split]:
            require(images[name], IMAGES_PER_CLASS, name, EXPECTED)
    return {split: {name: images[name] for name in lists[split]} for split in SPLITS}


def _png_images(files: Files, lists: dict[str, list[str]]) -> defaultdict[str, dict[str, Callable[[], Any]]]:
    classes = {name for split in SPLITS for name in lists[split]}
    images: defaultdict[str, dict[str, Callable[[], Any]]] = defaultdict(dict)
    for name, reader in files.items():
        path = PurePosixPath(name)
        if path.suffix.lower() == ".png" and path.parent.name in classes and not path.name.startswith("."):
            images[path.parent.name][path.name] = reader
    return images


def _pickled_images(files: Files) -> defaultdict[str, dict[str, Callable[[], Any]]]:
    pickles = {PurePosixPath(name).name: reader for name, reader in files.items()}
    for name in ("meta", "train", "test"):
        if name not in pickles:
            raise UserError(f"cifar-100-python/{name} is missing: wrong or incomplete archive; {EXPECTED}")
    class_names = strings(field(read_dict(pickles["meta"], EXPECTED), "fine_label_names", EXPECTED)) or []
    images: defaultdict[str, dict[str, Callable[[], Any]]] = defaultdict(dict)
    for subset in ("train", "test"):
        for label, name, image in _read_subset(pickles[subset], subset, len(class_names)):
            images[class_names[label]][name] = functools.partial(np.asarray, image)
    return images


def _read_subset(member: Member, subset: str, num_classes: int) -> list[tuple[int, str, np.ndarray]]:
    """Label, file name and uint8 ``[32, 32, 3]`` image of every row of ``train`` or ``test``."""
    content = read_dict(member, EXPECTED)
    data, labels = field(content, "data", EXPECTED), field(content, "fine_labels", EXPECTED)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise UserError(f"cifar-100-python/{subset}: the data are not uint8 [N, 3072]; {EXPECTED}")
    # The names only put the images of a class in order, and some re-packed archives lack them.
    names = strings(content.get("filenames", [f"{subset}_{i:05d}.png" for i in range(len(data))])) or []
    numbers = row_numbers(labels, num_classes)
    if numbers is None or not len(numbers) == len(names) == len(data):
        raise UserError(f"cifar-100-python/{subset}: the labels or file names do not fit the data; {EXPECTED}")
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return list(zip(numbers.tolist(), names, images, strict=True))
