"""L2F: learning to forget (Baik, Hong and Lee, CVPR 2020; https://arxiv.org/abs/1906.05895).

    e = (mean dL(theta; S)/dtheta_1, ..., mean dL(theta; S)/dtheta_n)        one number a tensor, a constant
    gamma = sigmoid(W2 relu(W1 e + b1) + b2)
    theta_{j,0} = gamma_j theta_j,   then MAML

This is MAML from a start that each episode attenuates. Facts from the authors' code (baiksung/L2F): all adapted tensors
are attenuated, the head's weight and bias too; gradients are of first order in epochs 0 to 10. Behind a normalisation
an attenuated kernel gives nearly the same output, with a gradient larger by 1/gamma. Only the head therefore forgets;
for kernels gamma is a relative step size.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._base import (
    Adapted,
    MetaLearner,
    gradient_based,
    predict_adapted,
    query_loss,
    with_statistics,
)  # fmt: skip
from cxgrad_jax.learners._inner_loop import first_order_at, scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._labels import Fast, ParamLabels, default_labels, merge, split_by_label
from cxgrad_jax.learners._mlp import init_mlp, mlp
from cxgrad_jax.learners._model import dtype_of, module_classes
from cxgrad_jax.learners._spec import described


@described
def l2f(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    num_steps: int = 5,
    first_order_epochs: int = 0,
    epoch_iterations: int = 500,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """L2F on MAML.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: of MAML's steps.
      num_steps: inner steps.
      first_order_epochs: epochs at the start of training in which the outer loop takes inner gradients for
        constants; 11 in the official code.
      epoch_iterations: outer iterations of an epoch.
      first_order: the outer loop always takes inner gradients for constants. The attenuation stays differentiated.
      remat: compute inner steps anew in the outer backward pass, to save memory.
      param_labels: which parameters adapt and are attenuated.
      query_statistics: by what batch normalisations normalise query images: ``"query"``, their own statistics
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "attenuator": {"hidden": ..., "output": ...}}``. Trace: ``"support_loss"
    [steps]``, and of the one attenuation ``"gamma" [n]`` and ``"embedding" [n]``, e, in the order of
    ``split_by_label``.
    """

    def adapt_by(first_order):
        def adapt(params, support_images, support_labels):
            classes = module_classes(model, support_images)
            theta, frozen, _ = split_by_label(params["model"], param_labels, classes)
            gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
            embedding = jax.lax.stop_gradient(tensor_means(gradients_at(theta)[1], list(theta)))
            gamma = jax.nn.sigmoid(mlp(params["attenuator"], embedding))

            def step(theta, _):
                support_loss, gradients = gradients_at(theta)
                trace = {"support_loss": support_loss, "fast": theta, **traced_norms(gradients)}
                return sgd(theta, gradients, inner_lr), trace

            attenuated = {path: gamma[j] * theta[path] for j, path in enumerate(theta)}
            theta, trace = scan_steps(step, attenuated, num_steps, remat)
            return Adapted(merge(theta, frozen), {**trace, "gamma": gamma, "embedding": embedding})

        return adapt

    def loss(params, episode, iteration=None):
        now = first_order_at(first_order, first_order_epochs * epoch_iterations, iteration)
        adapt_now = with_statistics(model, adapt_by(now), query_statistics)
        return query_loss(adapt_now, predict_adapted(model))(params, episode)

    def init_attenuator(key, model_params, images):
        n = len(split_by_label(model_params, param_labels, module_classes(model, images))[0])
        return {"attenuator": init_mlp(key, n, n, n, dtype_of(model_params))}

    return gradient_based(model, adapt_by(first_order), init_attenuator, loss, param_labels, query_statistics)


def tensor_means(tensors: Fast, paths: list[str]) -> jax.Array:
    """The mean of each tensor, ``[n]`` in the order of ``paths``."""
    return jnp.stack([jnp.mean(tensors[path]) for path in paths])
