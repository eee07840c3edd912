"""Several devices: the tasks of an outer iteration lie along the only axis of a mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from cxgrad_jax import platforms, runtime
from cxgrad_jax.errors import UserError

TASK_AXIS = "task"
REPLICATED = P()


def task_mesh(num_devices: int = 0) -> Mesh:
    """Makes a mesh of ``num_devices`` devices along the task axis; 0 takes all devices.

    Raises:
      UserError: ``num_devices`` exceeds the number of devices.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise UserError(f"parallel.num_devices is {num_devices}, but {len(devices)} are visible; 0 takes all")
    return Mesh(np.asarray(devices[: num_devices or None]), (TASK_AXIS,), axis_types=(AxisType.Auto,))


def compiled_for(mesh: Mesh, function: Callable[..., Any], **options: Any) -> Any:
    """Applies ``jax.jit`` for a mesh: with the forms of layers of its platform, and its compiler options.

    Args:
      mesh: the mesh that the arguments lie on.
      function: the function to compile. It takes arrays.
      options: options of ``jax.jit``, such as ``donate_argnums``.
    """
    platform = mesh.devices.flat[0].platform

    @functools.wraps(function)
    def traced(*arguments):
        with platforms.traced_for(platform):
            return function(*arguments)

    return jax.jit(traced, compiler_options=runtime.compiler_options(mesh.size, platform), **options)


def vary(tree: Any) -> Any:
    """Marks replicated values as different on every device, inside ``shard_map``.

    Without it, JAX sums a gradient with respect to a replicated value over the devices. In the inner loop that would
    silently mix the tasks of all devices.
    """
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(tree, TASK_AXIS, to="varying")
    return getattr(jax.lax, "pvary")(tree, TASK_AXIS)  # noqa: B009  jax 0.7 and 0.8 have no pcast


def varying_like(tree: Any, example: jax.Array) -> Any:
    """Marks the floats of ``tree`` as different on the devices on which ``example`` is, inside anybody's ``shard_map``.

    A learner needs it for what it differentiates with respect to, as ``vary`` says: its parameters, and a state that
    begins as a constant, which JAX takes for replicated. The values stay. Outside of ``shard_map`` nothing changes.
    """

    def mark(x):
        x = jnp.asarray(x)
        return x + jnp.zeros_like(example, x.dtype, shape=()) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(mark, tree)


def mean_over_devices(tree: Any) -> Any:
    """Mean of a pytree of floats over the task axis, inside ``shard_map``, as a single all-reduce."""
    flat, restore = ravel_pytree(tree)
    return restore(jax.lax.pmean(flat, TASK_AXIS))


def put(mesh: Mesh, tree: Any, spec: P = REPLICATED) -> Any:
    """Places host arrays on the mesh. Of several processes, each gives the part that its own devices hold."""
    sharding = NamedSharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def rows_format(mesh: Mesh) -> Format:
    """How ``put_rows`` places rows: a copy on every device, in which each row is contiguous.

    Otherwise a TPU would lay the numbers of one column side by side, and a program that gathers rows would begin with a
    copy of the whole array.
    """
    return Format(Layout(major_to_minor=(0, 1)), NamedSharding(mesh, REPLICATED))


def put_rows(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Places ``rows [N, D]`` on every device of the mesh as ``rows_format`` says."""
    place = rows_format(mesh)
    if jax.process_count() == 1:
        return jax.device_put(rows, place)
    here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    copies = [jax.device_put(rows, Format(place.layout, SingleDeviceSharding(device))) for device in here]
    return jax.make_array_from_single_device_arrays(rows.shape, NamedSharding(mesh, REPLICATED), copies)


def fetch(tree: Any) -> Any:
    """Brings arrays of the mesh to every process as NumPy arrays."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def device_memory(mesh: Mesh) -> int:
    """Bytes of memory that a store may share on each device of the mesh, or 0.

    It is 0 for a CPU, whose devices would each copy what is already in the machine's memory. It is also 0 if a device
    does not report how much memory it has.
    """
    device = mesh.devices.flat[0]
    return (device.memory_stats() or {}).get("bytes_limit", 0) if device.platform != "cpu" else 0


def fits_on_device(num_bytes: int, memory: float) -> bool:
    """Whether a store of this size may lie on a device: it takes at most half of the device's memory."""
    return num_bytes <= memory / 2
