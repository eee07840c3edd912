"""An image store: the images of one split, grouped by class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cxgrad_jax.arguments import check_image_shape, check_kind, check_whole
from cxgrad_jax.errors import UserError

SPLITS = ("train", "val", "test")


class ImageStore(NamedTuple):
    """The images of one split, ordered by class, so that a class is one contiguous range.

    Attributes:
      images: ``[num_images, H, W, C]``, uint8 or float in [0, 1], as a plain array or a read-only memory map.
      offsets: int32 ``[num_classes + 1]``. Class ``c`` owns the images ``offsets[c]`` to ``offsets[c + 1] - 1``.
      class_names: the names of the ``num_classes`` classes, in the order of ``offsets``.
      name: the name of the data set in reports and messages.
      split: "train", "val" or "test". The same seed draws other episodes from each.
    """

    images: np.ndarray
    offsets: np.ndarray
    class_names: tuple[str, ...]
    name: str = ""
    split: str = "train"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def smallest_class(self) -> int:
        """The number of images of the smallest class, which is the upper bound of shot + query."""
        return int(np.diff(self.offsets).min())


class ClassSplits(NamedTuple):
    """Three stores that share no class."""

    train: ImageStore
    val: ImageStore
    test: ImageStore


def check_store(store: Any) -> None:
    """Refuses anything else in the place of an image store, and a store whose parts do not fit together."""
    check_kind("store", store, ImageStore._fields, "an image store, such as cx.data.from_arrays(images, labels)")
    check_kind("store.images", store.images, ("shape", "dtype"), "an array [N, H, W, C]")
    check_images(store.images)
    offsets = np.asarray(store.offsets, np.int64)  # differences of unsigned numbers would not fall below 0
    sizes = np.diff(offsets)
    images, classes = len(store.images), len(store.class_names)
    if offsets.shape != (classes + 1,) or offsets[0] != 0 or offsets[-1] != images or (sizes < 1).any():
        raise UserError(
            f"offsets do not divide {images} images among {classes} classes; expected {classes + 1} rising numbers, "
            f"from 0 to {images}"
        )


def check_images(images: np.ndarray) -> None:
    """Refuses arrays other than images ``[N, H, W, C]``, uint8 or float in [0, 1]."""
    check_image_shape("images", images.shape)
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f" and images.dtype.name != "bfloat16":
        raise UserError(
            f"images have dtype {images.dtype}; expected uint8, or float in [0, 1]; images.astype(np.uint8) where "
            "the values are whole numbers from 0 to 255"
        )
    low, high = float(images.min()), float(images.max())
    if np.isnan(low):
        raise UserError("images hold NaN; expected finite values in [0, 1]")
    if low < 0 or high > 1:
        raise UserError(
            f"images have values from {low:g} to {high:g}; expected float values in [0, 1], or uint8; divide by 255 "
            "where they go up to 255"
        )


def with_rotations(store: ImageStore) -> ImageStore:
    """Adds every class, turned by 90, 180 and 270 degrees, as a class of its own: four times as many classes.

    This is the augmentation of Vinyals et al. (2016, https://arxiv.org/abs/1606.04080) for Omniglot.

    Raises:
      UserError: ``store`` has the wrong type, or its images are not square.
    """
    check_store(store)
    height, width = store.images.shape[1:3]
    if height != width:
        raise UserError(f"images are {height}x{width}; expected square ones, which a quarter turn does not change")
    turned = [np.rot90(store.images, k, axes=(1, 2)) for k in range(4)]
    sizes = np.tile(np.diff(store.offsets), 4)
    names = tuple(f"{name}/rot{90 * k}" for k in range(4) for name in store.class_names)
    return store._replace(images=np.concatenate(turned), offsets=offsets_of(sizes), class_names=names)


def split_classes(store: ImageStore, seed: int, fractions: Sequence[float] = (0.64, 0.16, 0.20)) -> ClassSplits:
    """Distributes the classes of a store at random over train, val and test, as in::

        train, val, test = cx.data.split_classes(store, seed=0)

    Args:
      store: a store with at least three classes. Its images are copied.
      seed: the seed, at least 0. The same seed gives the same splits.
      fractions: the shares of the classes for train, val and test, three positive numbers with the sum 1. Numbers of
        classes are rounded, and every split has at least one.

    Returns:
      Three stores named "train", "val" and "test". Each keeps the order that its classes had.

    Raises:
      UserError: ``store`` or ``seed`` has the wrong type, the store has fewer than three classes, or the fractions are
        not three positive numbers with the sum 1.
    """
    check_store(store)
    check_whole("seed", seed, 0)
    try:
        shares = np.asarray(fractions, float)
    except (TypeError, ValueError):
        shares = np.zeros(0)
    if shares.shape != (3,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise UserError(f"fractions is {fractions!r}; expected three positive numbers that sum to 1")
    if store.num_classes < 3:
        raise UserError(f"{store.num_classes} classes cannot be split into train, val and test; expected 3 or more")
    train = int(np.clip(round(store.num_classes * shares[0]), 1, store.num_classes - 2))
    val = int(np.clip(round(store.num_classes * shares[1]), 1, store.num_classes - train - 1))
    order = np.random.default_rng(seed).permutation(store.num_classes)
    parts = (order[:train], order[train : train + val], order[train + val :])
    return ClassSplits(*(_subset(store, np.sort(part), split) for part, split in zip(parts, SPLITS, strict=True)))


def offsets_of(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """The class boundaries ``[num_classes + 1]`` from the number of images of each class, ``[num_classes]``."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


def _subset(store: ImageStore, classes: np.ndarray, split: str) -> ImageStore:
    images = np.concatenate([store.images[store.offsets[c] : store.offsets[c + 1]] for c in classes])
    names = tuple(store.class_names[c] for c in classes)
    return ImageStore(images, offsets_of(np.diff(store.offsets)[classes]), names, store.name, split)
