"""Task batching: over one device in chunks, and over the devices of a ``task`` mesh axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cxgrad_jax.errors import UserError
from cxgrad_jax.platforms import current_platform

TASK_AXIS = "task"
REPLICATED = P()


def task_mesh(num_devices: int = 0) -> Mesh:
    """A mesh of ``num_devices`` devices (all if 0) along the task axis.

    Raises:
      UserError: more devices are asked for than there are.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise UserError(f"parallel.num_devices is {num_devices}, but {len(devices)} are visible; 0 takes all")
    return Mesh(np.asarray(devices[: num_devices or None]), (TASK_AXIS,), axis_types=(AxisType.Auto,))


def default_chunk(tasks: int) -> int:
    """How many of ``tasks`` to vectorise over at once: one on a CPU, where per-task kernels make a slow grouped
    convolution and memory grows with every task; all on an accelerator."""
    return 1 if current_platform() == "cpu" else tasks


def map_tasks(function: Callable, arguments: Any, chunk: int) -> Any:
    """``function`` of each task along the leading axis of ``arguments``, ``chunk`` of them vectorised at a time."""
    if chunk == 1:
        return jax.lax.map(function, arguments)
    return jax.lax.map(function, arguments, batch_size=chunk)


def mean_loss_and_gradients(loss: Callable, params: Any, episodes: Any, chunk: int) -> tuple[tuple[Any, Any], Any]:
    """Mean loss, mean metrics and gradient of the mean over the leading task axis of ``episodes``.

    Chunks of ``chunk`` tasks are vectorised and follow one another, so that the activations in memory are one chunk's.
    Every choice gives the same numbers up to the order of summation.

    Args:
      loss: ``(params, episode) -> (scalar, dict of scalars)``, a ``MetaLearner.loss``.
      params: meta-parameters.
      episodes: a pytree with a leading axis of tasks, a multiple of ``chunk``.
      chunk: tasks vectorised at once.

    Returns:
      ``((loss, metrics), gradients)``.
    """

    def chunk_loss(params, episodes):
        if chunk == 1:  # no vmap: a batch of one would still become a grouped convolution
            return loss(params, jax.tree.map(lambda x: x[0], episodes))
        losses, metrics = jax.vmap(lambda episode: loss(params, episode))(episodes)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    value_and_grad = jax.value_and_grad(chunk_loss, has_aux=True)
    tasks = jax.tree.leaves(episodes)[0].shape[0]
    if tasks == chunk:
        return value_and_grad(params, episodes)
    chunks = jax.tree.map(lambda x: x.reshape(tasks // chunk, chunk, *x.shape[1:]), episodes)
    results = jax.lax.map(lambda episodes: value_and_grad(params, episodes), chunks)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), results)


def vary(tree: Any) -> Any:
    """Marks replicated values as different on every device, inside ``shard_map``.

    Without it a gradient by a replicated value is summed over the devices at once, also in the inner loop, where it
    would silently mix the tasks of all devices.
    """
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(tree, TASK_AXIS, to="varying")
    return jax.lax.pvary(tree, TASK_AXIS)  # jax 0.7 and 0.8 have no pcast


def mean_over_devices(tree: Any) -> Any:
    """Mean of a pytree of floats over the task axis, inside ``shard_map``, as a single all-reduce."""
    flat, restore = ravel_pytree(tree)
    return restore(jax.lax.pmean(flat, TASK_AXIS))


def put(mesh: Mesh, tree: Any, spec: P = REPLICATED) -> Any:
    """Places host arrays on the mesh; with several processes each gives the part that its own devices hold."""
    sharding = NamedSharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def fetch(tree: Any) -> Any:
    """Brings arrays of the mesh to every process as numpy arrays."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def fits_on_device(num_bytes: int, mesh: Mesh) -> bool:
    """Whether a store of this size may live on each device of the mesh: at most half of its memory.

    Not on a CPU, whose devices would each copy what lies in the machine's memory already, nor where a device does not
    tell how much it has.
    """
    device = mesh.devices.flat[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    return bool(stats) and num_bytes <= stats["bytes_limit"] // 2
