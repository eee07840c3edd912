"""Forms of many tasks on one accelerator, each of which has adapted kernels of its own.

All give the same numbers up to rounding. ``benchmarks.on_paper`` compiles the training iteration in each of them for a
device that is not here, and ``benchmarks.on_device`` times them on one that is. The form that the library has is chosen
in ``cxgrad_jax.models._convolution`` and ``cxgrad_jax.batching``.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax import lax

from cxgrad_jax.learners import _inner_loop
from cxgrad_jax.models import _layers
from cxgrad_jax.models._convolution import _transposed
from cxgrad_jax.models._residuals import keep, kept

Array = jax.Array


class Form(NamedTuple):
    """A way to run the tasks of a device.

    Attributes:
      convolution: in the place of ``models._convolution.convolution``; None for the library's own.
      at_once: tasks that are vectorised together; 0 for all.
      loop: whether inner steps are a loop, also where the library writes them one after the other.
    """

    convolution: Callable[..., Array] | None = None
    at_once: int = 0
    loop: bool = False


class Products(NamedTuple):
    """How the convolutions of all tasks of a device are computed. Both are bilinear and each other's derivatives.

    Attributes:
      convolve: ``(x [T, N, H, W, C], kernels [T, S, S, C, F], precision) -> [T, N, H, W, F]``.
      gradient: ``(x, g [T, N, H, W, F], S, precision) -> `` the gradient of ``sum(convolve(x, kernels) * g)`` with
        respect to the kernels.
    """

    convolve: Callable[..., Array]
    gradient: Callable[..., Array]


def merged(x: Array) -> Array:
    """``[T, N, H, W, C]`` with the tasks among the channels: ``[N, H, W, T*C]``."""
    return x.transpose(1, 2, 3, 0, 4).reshape(*x.shape[1:4], -1)


def separated(x: Array, tasks: int) -> Array:
    """The inverse of ``merged``."""
    return x.reshape(*x.shape[:3], tasks, -1).transpose(3, 0, 1, 2, 4)


def margins_of(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding "SAME" of a kernel of ``size`` x ``size``."""
    return ((size // 2, size // 2), (size // 2, size // 2))


def grouped() -> Products:
    """One convolution with a group of channels for each task."""

    def convolve(x, kernels, precision):
        return separated(convolution_of(merged(x), merged(kernels), precision, feature_group_count=len(x)), len(x))

    def gradient(x, g, size, precision):
        return separated(gradient_of(merged(x), merged(g), size, precision, batch_group_count=len(x)), len(x))

    return Products(convolve, gradient)


def one_each() -> Products:
    """A convolution of its own for each task."""

    def convolve(x, kernels, precision):
        return jnp.stack([convolution_of(*task, precision) for task in zip(x, kernels, strict=True)])

    def gradient(x, g, size, precision):
        return jnp.stack([gradient_of(*task, size, precision) for task in zip(x, g, strict=True)])

    return Products(convolve, gradient)


def patches() -> Products:
    """A batched matrix product of the patches ``[T, N*H*W, S*S*C]`` with the kernels."""

    def patches_of(x, size):
        height, width = x.shape[2:4]
        x = jnp.pad(x, ((0, 0), (0, 0), *margins_of(size), (0, 0)))
        moved = [x[:, :, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        return jnp.concatenate(moved, axis=-1).reshape(len(x), -1, size * size * x.shape[-1])

    def convolve(x, kernels, precision):
        rows = kernels.reshape(len(x), -1, kernels.shape[-1])
        product = jnp.matmul(patches_of(x, kernels.shape[1]), rows, precision=precision)
        return product.reshape(*x.shape[:4], -1)

    def gradient(x, g, size, precision):
        rows = g.reshape(len(x), -1, g.shape[-1])
        product = jnp.matmul(patches_of(x, size).transpose(0, 2, 1), rows, precision=precision)
        return product.reshape(len(x), size, size, x.shape[-1], g.shape[-1])

    return Products(convolve, gradient)


def convolution_of(x: Array, kernel: Array, precision: str | None, **groups: Any) -> Array:
    """XLA's convolution of ``x [N, H, W, C]``."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), margins_of(len(kernel)), dimension_numbers=dimensions, precision=precision, **groups
    )


def gradient_of(x: Array, g: Array, size: int, precision: str | None, **groups: Any) -> Array:
    """XLA's convolution of ``x [N, H, W, C]`` with ``g [N, H, W, F]`` in which images and channels change places."""
    dimensions = ("CHWN", "IHWO", "HWNC")
    return lax.conv_general_dilated(
        x, g, (1, 1), margins_of(size), dimension_numbers=dimensions, precision=precision, **groups
    )


def plain(x: Array, kernel: Array, precision: str | None = "highest") -> Array:
    """The convolution with the derivatives and the vectorisation that JAX gives it."""
    return convolution_of(x, kernel, precision)


def bilinear(products: Products) -> Callable[..., Array]:
    """Makes the convolution of one task, ``(x [N, H, W, C], kernel, precision) -> [N, H, W, F]``.

    Vectorised over tasks it is one call of ``products``. It has derivatives of every order, of reverse mode.
    """

    def vectorised(function):
        @jax.custom_batching.custom_vmap
        def one_task(*arrays):
            return function(*(array[None] for array in arrays))[0]

        @one_task.def_vmap
        def _(tasks, batched, *arrays):
            arrays = (a if b else jnp.broadcast_to(a, (tasks, *a.shape)) for a, b in zip(arrays, batched, strict=True))
            return function(*arrays), True

        return one_task

    @partial(jax.custom_vjp, nondiff_argnums=(2,))
    def convolution(x, kernel, precision):
        return vectorised(lambda x, kernel: products.convolve(x, kernel, precision))(x, kernel)

    @partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def kernel_gradient(x, g, size, precision):
        return vectorised(lambda x, g: products.gradient(x, g, size, precision))(x, g)

    def forward(x, kernel, precision):
        return convolution(x, kernel, precision), keep(x, kernel)

    def backward(precision, residuals, g):
        x, kernel = kept(residuals)
        return convolution(g, _transposed(kernel), precision), kernel_gradient(x, g, len(kernel), precision)

    def gradient_forward(x, g, size, precision):
        return kernel_gradient(x, g, size, precision), keep(x, g)

    def gradient_backward(size, precision, residuals, cotangent):
        x, g = kept(residuals)
        return convolution(g, _transposed(cotangent), precision), convolution(x, cotangent, precision)

    convolution.defvjp(forward, backward)
    kernel_gradient.defvjp(gradient_forward, gradient_backward)
    return lambda x, kernel, precision="highest": convolution(x, kernel, precision)


FORMS = {
    "library": Form(),
    "library, steps in a loop": Form(loop=True),
    "grouped": Form(bilinear(grouped())),
    "grouped, steps in a loop": Form(bilinear(grouped()), loop=True),
    "patches": Form(bilinear(patches())),
    "a convolution each": Form(bilinear(one_each())),
    "one task after the other": Form(at_once=1),
    "JAX's rules, vectorised": Form(plain),
}


@contextlib.contextmanager
def applied(form: Form) -> Iterator[None]:
    """Within it, models and inner loops that are traced have the form."""
    with contextlib.ExitStack() as stack:
        if form.convolution:
            stack.enter_context(mock.patch.object(_layers, "convolution", form.convolution))
        if form.loop:
            stack.enter_context(mock.patch.object(_inner_loop, "UNROLLED", 1))
        yield
