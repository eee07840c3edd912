"""Episodes, and how one is drawn: a pure function of (seed, split, index).

In short::

    sampler = cxgrad_jax.sampler(store, way=5, shot=1, query=15, seed=0)
    episode = sampler(7)
    meta_batch = sampler.batch([0, 1, 2, 3])
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cxgrad_jax.arguments import check_seed, check_whole
from cxgrad_jax.data import ImageStore
from cxgrad_jax.data._store import check_store
from cxgrad_jax.errors import UserError
from cxgrad_jax.keys import fixed_draws, purpose_key
from cxgrad_jax.platforms import host_device, on_mesh


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


class EpisodeShape(NamedTuple):
    """What an episode is made of: ``way`` classes with ``shot`` support and ``query`` query images each."""

    way: int
    shot: int
    query: int

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Support and query labels, int32 ``[way*shot]`` and ``[way*query]``: images are grouped by class."""
        classes = np.arange(self.way, dtype=np.int32)
        return np.repeat(classes, self.shot), np.repeat(classes, self.query)


def as_batch(episodes: Any) -> Episode:
    """Episodes as a batch: an ``Episode``, or a tuple of its four arrays, with a leading task axis.

    Raises:
      UserError: it has the wrong type, it is one episode, or the arrays have different numbers of tasks.
    """
    hint = "give a batch of episodes, such as sampler.batch(range(4))"
    if not isinstance(episodes, tuple) or len(episodes) != len(Episode._fields):
        raise UserError(f"episodes is of type {type(episodes).__name__}; {hint}")
    batch = Episode(*episodes)
    shape = np.shape(batch.support_labels)
    if len(shape) != 2:
        raise UserError(f"support_labels have shape {list(shape)}; expected [tasks, way*shot]: {hint}")
    for name, array in zip(Episode._fields, batch, strict=True):
        if np.shape(array)[:1] != shape[:1]:
            raise UserError(
                f"{name} have shape {list(np.shape(array))}, and support_labels {list(shape)}; expected as many tasks"
            )
    return batch


def draw_indices(
    offsets: jax.Array, largest_class: int, shape: EpisodeShape, seed: int, split: str, index: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Draws the images of episode ``index``: ``way`` classes, then ``shot + query`` images of each, no image twice.

    Args:
      offsets: int32 ``[num_classes + 1]``, the class boundaries of an ``ImageStore``. Classes may differ in size.
      largest_class: the number of images of the largest class (static).
      shape: way, shot and query (static).
      seed: the seed of the run.
      split: "train", "val" or "test". The same seed and index give other episodes on another split.
      index: the number of the episode. It may be traced.

    Returns:
      Positions in the store: int32 ``[way*shot]`` and ``[way*query]``, grouped by class. The bits are Threefry's and
      the remainder is integer sorting, so every backend draws the same episode.
    """
    with fixed_draws():
        key = jax.random.fold_in(purpose_key(seed, f"episodes/{split}"), index)
        class_key, image_key = jax.random.split(key)
        # 32 bits are asked for by name. In double precision the default is 64, which would draw other episodes and, in
        # a small class, images beyond its end.
        class_bits = jax.random.bits(class_key, (offsets.shape[0] - 1,), jnp.uint32)
        image_bits = jax.random.bits(image_key, (shape.way, largest_class), jnp.uint32)
    classes = jnp.argsort(class_bits)[: shape.way]
    start, end = offsets[classes], offsets[classes + 1]
    # The order of random bits is a random order of a class. Positions beyond the end of a smaller class come last. The
    # sort is stable, so a tie with the largest value cannot bring one of them forward.
    beyond = jnp.arange(largest_class, dtype=jnp.int32)[None] >= (end - start)[:, None]
    order = jnp.argsort(jnp.where(beyond, jnp.uint32(0xFFFFFFFF), image_bits), axis=1)[:, : shape.shot + shape.query]
    positions = start[:, None] + order.astype(jnp.int32)
    return positions[:, : shape.shot].reshape(-1), positions[:, shape.shot :].reshape(-1)


def draw_on_device(
    images: jax.Array,
    offsets: jax.Array,
    largest_class: int,
    shape: EpisodeShape,
    seed: int,
    split: str,
    index: jax.Array,
) -> Episode:
    """Draws episode ``index`` inside a compiled program from ``images [num_images, ...]``, which may be flat rows."""
    support, query = draw_indices(offsets, largest_class, shape, seed, split, index)
    support_labels, query_labels = map(jnp.asarray, shape.labels())
    return Episode(images[support], support_labels, images[query], query_labels)


class Sampler:
    """Draws the episodes of an image store on the host. The store may be a memory map.

    ``sampler(i)`` is episode ``i``; ``sampler.batch(indices)`` has a leading task axis. The arrays are NumPy's: uint8
    or float images as the store has them, and int32 labels. The function ``sampler`` makes one.

    Attributes:
      store: the images.
      shape: way, shot and query.
      seed: the seed of the draws.
    """

    def __init__(self, store: ImageStore, shape: EpisodeShape, seed: int):
        self.store, self.shape, self.seed = store, shape, seed
        host = host_device()
        mesh = Mesh(np.array([host]), ("host",))
        offsets, largest = np.asarray(store.offsets), largest_class(store)

        def draw(i):
            return draw_indices(jnp.asarray(offsets), largest, shape, seed, store.split, i)

        compiled = jax.jit(jax.vmap(draw))

        def draws(indices):
            with on_mesh(mesh):
                return compiled(jax.device_put(indices, host))

        self._draw = draws

    def __call__(self, index: int) -> Episode:
        """Episode ``index``: images ``[way*shot, H, W, C]`` and ``[way*query, H, W, C]``, labels int32."""
        return jax.tree.map(lambda x: x[0], self.batch([index]))

    def batch(self, indices: Sequence[int] | np.ndarray) -> Episode:
        """The episodes of ``indices``: images ``[tasks, way*shot, H, W, C]`` and so on.

        Raises:
          UserError: ``indices`` is not a sequence of whole numbers from 0 to 2147483647, or a program is being traced.
        """
        support, query = self._positions(indices)
        support_labels, query_labels = (np.tile(labels, (len(support), 1)) for labels in self.shape.labels())
        return Episode(self.store.images[support], support_labels, self.store.images[query], query_labels)

    def class_names(self, index: int) -> tuple[str, ...]:
        """The names of the classes of episode ``index``; the class at position c has label c."""
        first_of_classes = self._positions([index])[0][0, :: self.shape.shot]
        classes = np.searchsorted(self.store.offsets, first_of_classes, side="right") - 1
        return tuple(self.store.class_names[c] for c in classes)

    def _positions(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """Where the images of the episodes lie in the store: ``[tasks, way*shot]`` and ``[tasks, way*query]``."""
        try:
            support, query = self._draw(_checked_indices(indices))
            return np.asarray(support), np.asarray(query)
        except jax.errors.TracerArrayConversionError:
            raise UserError("a sampler draws on the host; draw episodes outside of jax.jit and the like") from None

    def __reduce__(self):
        return Sampler, (self.store, self.shape, self.seed)

    def __repr__(self) -> str:
        name = self.store.name or "images"
        way, shot, query = self.shape
        return f"sampler of {name} ({self.store.split}), way={way}, shot={shot}, query={query}, seed={self.seed}"


def _checked_indices(indices: Any) -> np.ndarray:
    """Numbers of episodes, int32 ``[n]``. Raises UserError if they are something else."""
    wanted = np.asarray(indices)
    if wanted.ndim != 1 or wanted.size == 0 or not np.issubdtype(wanted.dtype, np.integer):
        raise UserError(f"indices is {indices!r}; expected a sequence of whole numbers, such as range(4)")
    if wanted.min() < 0 or wanted.max() >= 2**31:
        raise UserError(f"episode {wanted.min() if wanted.min() < 0 else wanted.max()}; expected 0 to 2147483647")
    return wanted.astype(np.int32)


def sampler(store: ImageStore, way: int = 5, shot: int = 1, query: int = 15, seed: int = 0) -> Sampler:
    """Makes the function that draws episodes from ``store``.

    Args:
      store: images grouped by class. The same seed and index give other episodes on another ``store.split``.
      way: the number of classes of an episode, at least 2.
      shot: the number of support images of each class, at least 1.
      query: the number of query images of each class, at least 1.
      seed: the seed of the draws, 0 to 4294967295.

    Raises:
      UserError: a number is out of its range, or ``store`` is not an image store, has fewer classes than ``way``, or
        has a class of fewer images than ``shot + query``.
    """
    for name, value, least in (("way", way, 2), ("shot", shot, 1), ("query", query, 1)):
        check_whole(name, value, least)
    check_seed(seed)
    check_store(store)
    check_shape(store, EpisodeShape(way, shot, query))
    return Sampler(store, EpisodeShape(way, shot, query), int(seed))


def check_shape(store: ImageStore, shape: EpisodeShape) -> None:
    """Refuses episodes that a store cannot give.

    Raises:
      UserError: ``way`` exceeds the number of classes, or ``shot + query`` the images of the smallest class.
    """
    name = f"{store.name or 'the store'}, split {store.split}"
    if shape.way > store.num_classes:
        raise UserError(f"way is {shape.way}, but {name} has {store.num_classes} classes")
    if shape.shot + shape.query > store.smallest_class:
        smallest = store.class_names[int(np.argmin(np.diff(store.offsets)))]
        raise UserError(
            f"shot + query is {shape.shot} + {shape.query} = {shape.shot + shape.query}, but the smallest class of "
            f"{name}, {smallest}, has {store.smallest_class} images"
        )


def largest_class(store: ImageStore) -> int:
    """The number of images of the largest class of a store."""
    return int(np.diff(store.offsets).max())
