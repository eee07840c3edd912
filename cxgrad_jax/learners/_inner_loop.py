"""The inner loop that gradient-based learners share: scanned steps of support gradients and SGD."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.arguments import check_whole
from cxgrad_jax.learners._labels import Fast, merge
from cxgrad_jax.learners._losses import cross_entropy
from cxgrad_jax.learners._model import apply_model
from cxgrad_jax.platforms import current_platform

UNROLLED = 10  # at most this many inner steps are unrolled on a CPU or GPU


def support_loss(model: nn.Module, frozen: Fast, images: jax.Array, labels: jax.Array) -> Callable[[Fast], jax.Array]:
    """Makes the function ``fast -> support loss``: the mean cross-entropy of the support set, a scalar in nats.

    Args:
      model: a ``flax.linen`` classifier.
      frozen: the parameters that do not adapt, by path. ``fast`` are the others.
      images: the support images, ``[N, H, W, C]``.
      labels: the support labels, ``[N]``.
    """
    return lambda fast: cross_entropy(apply_model(model, merge(fast, frozen), images), labels)


def support_gradients(
    model: nn.Module, frozen: Fast, images: jax.Array, labels: jax.Array, first_order: bool | jax.Array
) -> Callable[[Fast], tuple[jax.Array, Fast]]:
    """Makes the function ``fast -> (support loss, its gradients with respect to fast)``.

    It takes one forward and one backward pass. The arguments before the last are those of ``support_loss``.

    Args:
      first_order: whether the gradients are constants for the outer loop. A traced boolean is possible, but always
        costs as much as second order.
    """

    value_and_grad = jax.value_and_grad(support_loss(model, frozen, images, labels))

    def loss_and_gradients(fast):
        value, gradients = value_and_grad(fast)
        return value, constant_if(first_order, gradients)

    return loss_and_gradients


def traced_norms(gradients: Fast) -> dict[str, jax.Array]:
    """The l2 norm of each kernel's gradient, for a trace: ``"gradient_norm/block_0/conv"`` and so on.

    Figure 2 of the CxGrad paper shows them. The head's norm is that of its kernel alone. The norms are constants for
    the outer loop.
    """
    kernels = {path.removesuffix("/kernel"): g for path, g in gradients.items() if path.endswith("/kernel")}
    return {
        f"gradient_norm/{name}": jnp.linalg.norm(jax.lax.stop_gradient(g).reshape(-1)) for name, g in kernels.items()
    }


def constant_if(condition: bool | jax.Array, tree: Any) -> Any:
    """Makes ``tree`` a constant for the outer gradient if ``condition`` holds. Its values stay the same."""
    if isinstance(condition, bool):
        return jax.lax.stop_gradient(tree) if condition else tree
    return jax.tree.map(lambda x: jnp.where(condition, jax.lax.stop_gradient(x), x), tree)


def first_order_at(first_order: bool, num_iterations: int, iteration: jax.Array | None) -> bool | jax.Array:
    """Whether outer ``iteration`` is of first order: always, or in the first ``num_iterations``.

    The latter is called derivative-order annealing. An iteration of None, as in a test, counts as late.
    """
    if first_order or iteration is None or num_iterations == 0:
        return first_order
    return iteration < num_iterations


def sgd(parameters: Any, gradients: Any, rates: float | Mapping[str, jax.Array]) -> Any:
    """``parameters - rates * gradients``, leaf by leaf.

    Args:
      parameters: a pytree of arrays.
      gradients: a pytree of the same structure.
      rates: one number for all, or a dict by path of scalars or arrays of the parameter's shape.

    Returns:
      The new parameters, a pytree of the same structure, shapes and dtypes.
    """
    if isinstance(rates, Mapping):
        return {path: value - rates[path] * gradients[path] for path, value in parameters.items()}
    return jax.tree.map(lambda p, g: p - rates * g, parameters, gradients)


def scan_steps(
    step: Callable[..., Any], state: Any, num_steps: int, remat: bool, per_step: Any = None
) -> tuple[Any, Any]:
    """Runs ``step(state, input) -> (state, trace)`` ``num_steps`` times and stacks the traces.

    On a CPU or GPU up to ``UNROLLED`` steps follow one another without a loop, because a loop copies its stacked
    activations in and out, and cuts a GPU's program into many CUDA graphs.

    Args:
      step: the function of one step. Its input is the step's slice of ``per_step``, or None.
      state: the state before the first step.
      num_steps: the number of steps.
      remat: whether the outer gradient computes each step again instead of storing its activations. Memory then no
        longer grows by a full backward pass in each step, and the time grows by about a third.
      per_step: a pytree whose leaves have a leading axis of steps, such as learned rates.

    Returns:
      The state after the last step, and the traces with a leading axis of steps.

    Raises:
      UserError: ``num_steps`` is not a positive whole number.
    """
    check_whole("num_steps", num_steps)
    body = jax.checkpoint(step) if remat else step
    unroll = num_steps if num_steps <= UNROLLED and current_platform() != "tpu" else 1
    return jax.lax.scan(body, state, per_step, length=num_steps, unroll=unroll)
