"""L2F: learning to forget (Baik, Hong and Lee, CVPR 2020): MAML from a start that each task attenuates.

    e = (mean dL(theta; S)/dtheta_1, ..., mean dL(theta; S)/dtheta_n)        one number a tensor, a constant
    gamma = sigmoid(W2 relu(W1 e + b1) + b2)
    theta_{j,0} = gamma_j theta_j,   then MAML

Facts from the authors' code (baiksung/L2F): all adapted tensors are attenuated, the head's weight and bias too;
gradients are of first order in epochs 0 to 10. Behind a normalisation an attenuated kernel gives nearly the same output
with a gradient larger by 1/gamma, so that only the head forgets; for kernels gamma is a relative step size.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._base import (
    Fast,
    Labels,
    MetaLearner,
    Task,
    default_labels,
    gradient_based,
    merge,
    query_loss,
    split_by_label,
)  # fmt: skip
from cxgrad_jax.learners._inner_loop import first_order_at, gradient_norms, scan_steps, sgd, support_gradients
from cxgrad_jax.learners._mlp import init_mlp, mlp


def l2f(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    num_steps: int = 5,
    first_order_epochs: int = 0,
    epoch_iterations: int = 500,
    first_order: bool = False,
    remat: bool = False,
    labels: Labels = default_labels,
) -> MetaLearner:
    """L2F on MAML.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: of MAML's steps.
      num_steps: inner steps.
      first_order_epochs: epochs at the start in which inner gradients are constants for the outer one; 11 in the
        official code.
      epoch_iterations: outer iterations of an epoch.
      first_order: treat inner gradients as constants always. The attenuation stays differentiated.
      remat: recompute inner steps in the outer backward pass to save memory.
      labels: which parameters adapt and are attenuated.

    Meta-parameters: ``{"model": ..., "attenuator": {"hidden": ..., "output": ...}}``. Trace: ``"support_loss" [steps]``
    and, of the one attenuation, ``"gamma" [n]`` and ``"embedding" [n]``, e, in the order of ``base.split_by_label``.
    """

    def inner_loop(params, support_images, support_labels, first_order):
        theta, frozen, _ = split_by_label(params["model"], labels)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        embedding = jax.lax.stop_gradient(tensor_means(gradients_at(theta)[1], list(theta)))
        gamma = jax.nn.sigmoid(mlp(params["attenuator"], embedding))

        def step(theta, _):
            support_loss, gradients = gradients_at(theta)
            trace = {"support_loss": support_loss, "fast": theta, **gradient_norms(gradients)}
            return sgd(theta, gradients, inner_lr), trace

        attenuated = {path: gamma[j] * theta[path] for j, path in enumerate(theta)}
        theta, trace = scan_steps(step, attenuated, num_steps, remat)
        return Task(merge(theta, frozen), {**trace, "gamma": gamma, "embedding": embedding})

    def adapt(params, support_images, support_labels):
        return inner_loop(params, support_images, support_labels, first_order)

    def init_attenuator(key, model_params, dtype):
        n = len(split_by_label(model_params, labels)[0])
        return {"attenuator": init_mlp(key, n, n, n, dtype)}

    learner = gradient_based(model, adapt, init_attenuator)

    def loss(params, episode, iteration=None):
        now = first_order_at(first_order, first_order_epochs * epoch_iterations, iteration)
        return query_loss(partial(inner_loop, first_order=now), learner.predict)(params, episode)

    return learner._replace(loss=loss)


def tensor_means(tensors: Fast, paths: list[str]) -> jax.Array:
    """The mean of each tensor, ``[n]`` in the order of ``paths``."""
    return jnp.stack([jnp.mean(tensors[path]) for path in paths])
