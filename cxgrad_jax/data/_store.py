"""An image store: the uint8 images of one split, grouped by class."""

from typing import NamedTuple

import numpy as np

SPLITS = ("train", "val", "test")


class ImageStore(NamedTuple):
    """The images of one split, ordered by class, so that a class is one contiguous range.

    Attributes:
      images: uint8 ``[num_images, H, W, C]``; a plain array or a read-only memory map.
      offsets: int32 ``[num_classes + 1]``; class ``c`` owns the images ``offsets[c]`` to ``offsets[c + 1] - 1``.
      class_names: one name per class, ``num_classes`` of them, in the order of ``offsets``.
      name: of the data set.
      split: "train", "val" or "test".
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
        """The number of images of the smallest class: the upper bound of shot + query."""
        return int(np.diff(self.offsets).min())


def with_rotations(store: ImageStore) -> ImageStore:
    """Adds every class turned by 90, 180 and 270 degrees as a class of its own: four times the classes.

    The augmentation of Vinyals et al. (2016) for Omniglot. Images must be square.
    """
    turned = [np.rot90(store.images, k, axes=(1, 2)) for k in range(4)]
    sizes = np.tile(np.diff(store.offsets), 4)
    names = tuple(f"{name}/rot{90 * k}" for k in range(4) for name in store.class_names)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return store._replace(images=np.concatenate(turned), offsets=offsets, class_names=names)
