"""The inner loop that gradient-based learners share: scanned steps of support gradients and SGD."""

from collections.abc import Callable

import flax.linen as nn
import jax

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners.base import Fast, apply_model, cross_entropy, merge

UNROLLED = 10  # most inner steps that are compiled one after the other on a CPU, without a loop


def support_gradients(
    model: nn.Module, frozen: Fast, images: jax.Array, labels: jax.Array, first_order: bool
) -> Callable[[Fast], tuple[jax.Array, Fast]]:
    """Makes the function ``fast -> (support loss, its gradients by fast)``: one forward and one backward pass.

    With ``first_order`` the gradients are constants for the outer loop.
    """

    def loss(fast):
        return cross_entropy(apply_model(model, merge(fast, frozen), images), labels)

    def loss_and_gradients(fast):
        value, gradients = jax.value_and_grad(loss)(fast)
        return value, jax.lax.stop_gradient(gradients) if first_order else gradients

    return loss_and_gradients


def sgd(parameters, gradients, learning_rate: float):
    """``parameters - learning_rate * gradients``, leaf by leaf."""
    return jax.tree.map(lambda p, g: p - learning_rate * g, parameters, gradients)


def scan_steps(step: Callable, state, num_steps: int, remat: bool):
    """Runs ``step(state) -> (state, trace)`` ``num_steps`` times and stacks the traces.

    With ``remat`` the outer gradient recomputes each step instead of storing its activations: memory no longer grows
    by a full backward pass a step, for about a third more time. On a CPU up to ``UNROLLED`` steps follow one another
    without a loop, whose stacked activations would be copied in and out.
    """
    if not isinstance(num_steps, int) or num_steps < 1:
        raise UserError(f"num_steps is {num_steps!r}; expected a whole number, at least 1")
    body = jax.checkpoint(step) if remat else step
    unroll = num_steps if num_steps <= UNROLLED and jax.default_backend() == "cpu" else 1
    return jax.lax.scan(lambda state, _: body(state), state, length=num_steps, unroll=unroll)
