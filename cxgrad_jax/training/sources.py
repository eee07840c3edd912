"""Sources of training data: episodes drawn on the device or on the host, and batches of a pre-training."""

import functools
import itertools
import math
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cxgrad_jax import parallel
from cxgrad_jax.augmentation import augmented
from cxgrad_jax.data import ImageStore
from cxgrad_jax.episodes import Episode, Sampler, draw_on_device, largest_class
from cxgrad_jax.keys import fixed_draws, purpose_key
from cxgrad_jax.platforms import host_device
from cxgrad_jax.pretraining import Batch


class Source(NamedTuple):
    """The training episodes of a run. Iteration t uses the episodes ``t * meta_batch`` to ``(t + 1) * meta_batch - 1``.

    Attributes:
      draw: ``(arrays, iteration, i) -> episodes`` of one device, ``[tasks of a device, ...]``, inside the compiled
        program. ``i`` counts the iterations of a dispatch from 0.
      spec: how the arrays lie on the mesh.
      arrays: ``dispatches -> iterator over the arrays of each``. A dispatch is its first iteration and its length.
    """

    draw: Callable[[Any, jax.Array, jax.Array], Episode]
    spec: P
    arrays: Callable[[Iterable[tuple[int, int]]], Generator[Any, None, None]]


def device_source(sampler: Sampler, meta_batch: int, mesh: Mesh) -> Source:
    """Draws episodes inside the compiled program, from images that lie on every device, each as one row."""
    tasks, largest = meta_batch // mesh.devices.size, largest_class(sampler.store)
    shape, seed, split = sampler.shape, sampler.seed, sampler.store.split
    image_shape = sampler.store.images.shape[1:]

    def draw(arrays, iteration, i):
        del i
        first = iteration * meta_batch + jax.lax.axis_index(parallel.TASK_AXIS) * tasks
        rows, offsets = parallel.vary(arrays)

        def episode(index):
            drawn = draw_on_device(rows, offsets, largest, shape, seed, split, index)
            support, query = (x.reshape(-1, *image_shape) for x in (drawn.support_images, drawn.query_images))
            return drawn._replace(support_images=support, query_images=query)

        return jax.vmap(episode)(first + jnp.arange(tasks))

    def arrays(dispatches):
        images, offsets = np.asarray(sampler.store.images), sampler.store.offsets
        resident = parallel.put_rows(mesh, images.reshape(len(images), -1)), parallel.put(mesh, offsets)
        for _ in dispatches:
            yield resident

    return Source(draw, P(), arrays)


def resident_shapes(store: ImageStore, mesh: Mesh) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The shapes, dtypes and places of the arrays of ``device_source``: images ``[N, H*W*C]`` and offsets."""
    images = len(store.images), math.prod(store.images.shape[1:])
    everywhere = NamedSharding(mesh, parallel.REPLICATED)
    return (
        jax.ShapeDtypeStruct(images, store.images.dtype, sharding=parallel.rows_format(mesh)),
        jax.ShapeDtypeStruct(store.offsets.shape, store.offsets.dtype, sharding=everywhere),
    )


def host_source(sampler: Sampler, meta_batch: int, mesh: Mesh) -> Source:
    """Draws episodes on the host, while the device works on the dispatch before."""
    spec = P(None, parallel.TASK_AXIS)
    tasks = meta_batch // mesh.devices.size
    here = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    positions = np.concatenate([np.arange(i * tasks, (i + 1) * tasks) for i in here])

    def draw(arrays, iteration, i):
        del iteration
        return jax.tree.map(lambda x: x[i], arrays)

    def episodes_of(dispatch):
        first, length = dispatch
        indices = (np.arange(first, first + length)[:, None] * meta_batch + positions).reshape(-1)
        return jax.tree.map(lambda x: x.reshape(length, len(positions), *x.shape[1:]), sampler.batch(indices))

    return Source(draw, spec, lambda dispatches: _one_ahead(episodes_of, dispatches, mesh, spec))


def batch_source(store: ImageStore, batch_size: int, augmentation: str, seed: int, mesh: Mesh) -> Source:
    """Makes batches of labelled images for pre-training.

    The host gathers them one dispatch ahead, and the device augments them. Each pass over the images has an order of
    its own. Images at its end that fill no batch are left out. The batch of an iteration is a pure function of the seed
    and the iteration, and so is its augmentation.
    """
    per_pass = len(store.images) // batch_size
    labels = np.repeat(np.arange(len(store.class_names), dtype=np.int32), np.diff(store.offsets))
    host = host_device()

    @functools.lru_cache(maxsize=2)
    def order(number):
        with jax.default_device(host), fixed_draws():
            key = jax.random.fold_in(purpose_key(seed, "pretraining/order"), number)
            return np.asarray(jax.random.permutation(key, len(store.images)))

    def batch_of(iteration):
        first = iteration % per_pass * batch_size
        chosen = np.sort(order(iteration // per_pass)[first : first + batch_size])  # sorted, for a memory map
        return Batch(np.asarray(store.images[chosen]), labels[chosen])

    def batches_of(dispatch):
        first, length = dispatch
        return jax.tree.map(lambda *x: np.stack(x)[:, None], *(batch_of(first + i) for i in range(length)))

    def draw(arrays, iteration, i):
        batch = jax.tree.map(lambda x: x[i], arrays)
        with fixed_draws():
            key = jax.random.fold_in(purpose_key(seed, "pretraining/augmentation"), iteration)
            return batch._replace(images=augmented(key, batch.images[0], augmentation)[None])

    spec = P(None, parallel.TASK_AXIS)
    return Source(draw, spec, lambda dispatches: _one_ahead(batches_of, dispatches, mesh, spec))


def _one_ahead(
    make: Callable[[tuple[int, int]], Any], dispatches: Iterable[tuple[int, int]], mesh: Mesh, spec: P
) -> Generator[Any, None, None]:
    """Puts the result of ``make`` for each dispatch on the mesh, one ahead: the next is made while the device works."""
    dispatches = iter(dispatches)
    with ThreadPoolExecutor(1) as pool:
        upcoming = [pool.submit(make, dispatch) for dispatch in itertools.islice(dispatches, 1)]
        while upcoming:
            made = upcoming.pop().result()
            upcoming = [pool.submit(make, dispatch) for dispatch in itertools.islice(dispatches, 1)]
            yield parallel.put(mesh, made, spec)
