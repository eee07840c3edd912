"""The platform that a program is for. No other module asks JAX for it.

Some layers and loops have a form of their own for a CPU, a GPU or a TPU. A program takes the form of the platform
that it is traced for: the platform of JAX's default device. ``traced_for`` sets that device while a program for another
platform is traced, so that a process with only a CPU can make a program for a TPU. JAX keeps programs of different
default devices apart and never takes one for another.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from jax.sharding import Mesh

from cxgrad_jax.errors import UserError

PLATFORMS = ("cpu", "gpu", "tpu")
GPU_MAKERS = ("cuda", "rocm")  # JAX's other names of the platform "gpu"


def current_platform() -> str:
    """The platform of the program being traced, or of JAX's default device: ``"cpu"``, ``"gpu"`` or ``"tpu"``."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        platform = jax.default_backend()
    else:
        platform = device if isinstance(device, str) else device.platform
    return "gpu" if platform in GPU_MAKERS else platform


def host_device() -> Any:
    """A device of the CPU, or the first device if ``JAX_PLATFORMS`` leaves the CPU out.

    Draws of whole numbers are the same on every platform.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def on_mesh(mesh: Mesh) -> AbstractContextManager[Any]:
    """A context in which programs run that were made for ``mesh``, whatever mesh ``jax.set_mesh`` has set outside."""
    return nullcontext() if jax.sharding.get_abstract_mesh().empty else jax.set_mesh(mesh)


def traced_for(platform: str | None) -> AbstractContextManager[None]:
    """A context in which programs are traced for ``platform``; None changes nothing.

    A program for a platform that this process does not have can be traced inside, but not lowered or run. What
    ``jax.jit(f).trace(...)`` gives is lowered after the context has ended.

    Raises:
      UserError: ``platform`` is not ``"cpu"``, ``"gpu"`` (or ``"cuda"``, ``"rocm"``), ``"tpu"`` or None.
    """
    if platform is None:
        return nullcontext()
    platform = "gpu" if platform in GPU_MAKERS else platform
    if platform not in PLATFORMS:
        raise UserError(f"platform is {platform!r}; expected one of {', '.join(PLATFORMS)}")
    return nullcontext() if platform == current_platform() else jax.default_device(platform)
