"""Which platform a program is for: the one place that asks JAX.

Some layers and loops have a form for a CPU and another for accelerators. A program takes the form of the platform that
it is traced for. That is the platform of JAX's default device, which ``traced_for`` sets while a program for another
one is traced: a program for a TPU can be made in a process that has only a CPU. JAX keeps programs of different
default devices apart, so none is taken for another.
"""

from contextlib import AbstractContextManager, nullcontext

import jax


def current_platform() -> str:
    """The platform of the program being traced: ``"cpu"``, ``"gpu"`` or ``"tpu"``."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def traced_for(platform: str | None) -> AbstractContextManager[None]:
    """A context in which programs are traced for ``platform``; None leaves the default device's.

    Raises:
      ValueError: ``platform`` is not ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    return nullcontext() if platform is None else jax.default_device(platform)
