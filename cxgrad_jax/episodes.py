"""Episodes, and how one is drawn: a pure function of (seed, split, index)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cxgrad_jax.data._store import SPLITS, ImageStore


class Episode(NamedTuple):
    """One few-shot task: a support set to adapt to and a query set to be judged on.

    Attributes:
      support_images: ``[way*shot, H, W, C]``, uint8 or float in [0, 1].
      support_labels: int32 ``[way*shot]``, values 0..way-1.
      query_images: ``[way*query, H, W, C]``, like the support images.
      query_labels: int32 ``[way*query]``, values 0..way-1.

    A batch of episodes is an ``Episode`` whose arrays have a leading task axis.
    """

    support_images: Any
    support_labels: Any
    query_images: Any
    query_labels: Any


class Shape(NamedTuple):
    """What an episode is made of: ``way`` classes with ``shot`` support and ``query`` query images each."""

    way: int
    shot: int
    query: int

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Support and query labels, int32 ``[way*shot]`` and ``[way*query]``: images are grouped by class."""
        classes = np.arange(self.way, dtype=np.int32)
        return np.repeat(classes, self.shot), np.repeat(classes, self.query)


def draw_indices(
    offsets: jax.Array, largest_class: int, shape: Shape, seed: int, split: str, index: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Draws the images of episode ``index``: ``way`` classes, then ``shot + query`` images of each, no image twice.

    Args:
      offsets: int32 ``[num_classes + 1]``, the class boundaries of an ``ImageStore``; classes may differ in size.
      largest_class: the number of images of the largest class (static).
      shape: way, shot and query (static).
      seed: of the run.
      split: "train", "val" or "test": the same seed and index give other episodes on another split.
      index: which episode; may be traced.

    Returns:
      Positions in the store: int32 ``[way*shot]`` and ``[way*query]``, grouped by class. The bits are Threefry's and
      the rest is integer sorting, so every backend draws the same episode.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(key, SPLITS.index(split)), index)
    class_key, image_key = jax.random.split(key)
    # 32 bits by name: in double precision the default is 64, which would draw other episodes and, in a small class,
    # images beyond its end.
    classes = jnp.argsort(jax.random.bits(class_key, (offsets.shape[0] - 1,), jnp.uint32))[: shape.way]
    start, end = offsets[classes], offsets[classes + 1]
    # A random order of a class is the order of random bits; positions beyond the end of a smaller class come last
    # (the sort is stable, so a tie with the largest value cannot bring one forward).
    bits = jax.random.bits(image_key, (shape.way, largest_class), jnp.uint32)
    beyond = jnp.arange(largest_class) >= (end - start)[:, None]
    order = jnp.argsort(jnp.where(beyond, jnp.uint32(0xFFFFFFFF), bits), axis=1)[:, : shape.shot + shape.query]
    positions = (start[:, None] + order).astype(jnp.int32)
    return positions[:, : shape.shot].reshape(-1), positions[:, shape.shot :].reshape(-1)


def draw_on_device(
    images: jax.Array, offsets: jax.Array, largest_class: int, shape: Shape, seed: int, split: str, index: jax.Array
) -> Episode:
    """Draws episode ``index`` inside a compiled program from ``images [num_images, H, W, C]``, uint8."""
    support, query = draw_indices(offsets, largest_class, shape, seed, split, index)
    support_labels, query_labels = map(jnp.asarray, shape.labels())
    return Episode(images[support], support_labels, images[query], query_labels)


class HostDrawer:
    """Draws batches of episodes on the host from a store that may be a memory map, the same episodes as on a device."""

    def __init__(self, store: ImageStore, shape: Shape, seed: int, split: str):
        self._store, self._shape = store, shape
        largest = largest_class(store)
        cpu = jax.local_devices(backend="cpu")[0]
        with jax.default_device(cpu):
            offsets = jnp.asarray(store.offsets)
        draw = jax.jit(jax.vmap(lambda i: draw_indices(offsets, largest, shape, seed, split, i)))
        self._draw = lambda indices: draw(jax.device_put(np.asarray(indices, np.int32), cpu))

    def __call__(self, indices: np.ndarray) -> Episode:
        """Episodes of ``indices [n]``: numpy arrays with a leading axis of n."""
        support, query = (np.asarray(positions) for positions in self._draw(indices))
        support_labels, query_labels = (np.tile(labels, (len(indices), 1)) for labels in self._shape.labels())
        images = self._store.images
        return Episode(images[support], support_labels, images[query], query_labels)


def largest_class(store: ImageStore) -> int:
    """The number of images of the largest class of a store."""
    return int(np.diff(store.offsets).max())
