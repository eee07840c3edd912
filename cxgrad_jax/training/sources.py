"""Where the episodes of training come from: drawn on the device, or on the host one dispatch ahead."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cxgrad_jax import parallel
from cxgrad_jax.episodes import Episode, Sampler, draw_on_device, largest_class


class Source(NamedTuple):
    """The training episodes of a run. Iteration t uses the episodes ``t * meta_batch`` to ``(t + 1) * meta_batch - 1``.

    Attributes:
      draw: ``(arrays, iteration, i) -> episodes`` of one device, ``[tasks of a device, ...]``, inside the compiled
        program; ``i`` counts the iterations of a dispatch from 0.
      spec: how the arrays lie on the mesh.
      arrays: ``dispatches -> `` an iterator over the arrays of each. A dispatch is its first iteration and its length.
    """

    draw: Callable[[Any, jax.Array, jax.Array], Episode]
    spec: P
    arrays: Callable[[Iterable[tuple[int, int]]], Generator[Any, None, None]]


def device_source(sampler: Sampler, meta_batch: int, mesh: Mesh) -> Source:
    """Episodes drawn inside the compiled program, from images that live on every device."""
    tasks, largest = meta_batch // mesh.devices.size, largest_class(sampler.store)
    shape, seed, split = sampler.shape, sampler.seed, sampler.store.split

    def draw(arrays, iteration, i):
        del i
        first = iteration * meta_batch + jax.lax.axis_index(parallel.TASK_AXIS) * tasks
        images, offsets = parallel.vary(arrays)
        indices = first + jnp.arange(tasks)
        return jax.vmap(lambda index: draw_on_device(images, offsets, largest, shape, seed, split, index))(indices)

    def arrays(dispatches):
        resident = parallel.put(mesh, (np.asarray(sampler.store.images), sampler.store.offsets))
        for _ in dispatches:
            yield resident

    return Source(draw, P(), arrays)


def host_source(sampler: Sampler, meta_batch: int, mesh: Mesh) -> Source:
    """Episodes drawn on the host while the device works on the dispatch before."""
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

    def arrays(dispatches):
        dispatches = iter(dispatches)
        with ThreadPoolExecutor(1) as pool:
            upcoming = [pool.submit(episodes_of, dispatch) for dispatch in _first(dispatches)]
            while upcoming:
                episodes = upcoming.pop().result()
                upcoming = [pool.submit(episodes_of, dispatch) for dispatch in _first(dispatches)]
                yield parallel.put(mesh, episodes, spec)

    return Source(draw, spec, arrays)


def _first(items: Iterator[Any]) -> list[Any]:
    """The next item alone in a list, or an empty list."""
    return [item for _, item in zip(range(1), items, strict=False)]
