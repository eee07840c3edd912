"""CxGrad: contextual gradient scaling (Lee, Lee and Song, WACV 2022; https://arxiv.org/abs/2110.10353).

    gamma = softplus(W2 relu(W1 nu + b1) + b2)                        scaling factors of the context, Eq. 8
    w_hat_l = gamma_l w_l / ||w_l||                                   implicit gradient scaling (IGS), Eq. 6
    w <- w_hat - alpha dL/dw_hat,   psi <- psi - alpha dL/dpsi        one inner step on the support set
    nu <- nu - beta dL/dnu                                            one step of the context, Eq. 7

These are Algorithms 1 and 2: w_l are the convolution kernels, and psi is the head. A normalisation follows each
convolution. Scaling a kernel therefore leaves the output unchanged and divides the kernel's gradient by gamma (Eq. 5).
Without the normalisation's epsilon the loss would not depend on gamma, and nu would stay at zero.

Section 3.2 also names an explicit way to scale, which is the learner ``cxgrad_explicit``. The authors' code:
https://github.com/shlee625/CxGrad.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import constant_if, scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._labels import Fast, ParamLabels, default_labels, merge, split_by_label
from cxgrad_jax.learners._meta_learner import Adapted, InitExtra, MetaLearner
from cxgrad_jax.learners._mlp import init_mlp, mlp
from cxgrad_jax.learners._model import Params, dtype_of
from cxgrad_jax.learners._modules import ModuleClass, module_classes
from cxgrad_jax.learners._spec import described


@described
def cxgrad(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    context_lr: float = 1.0,
    num_steps: int = 5,
    context_dim: int = 100,
    first_order: bool = False,
    context_update: str = "task",
    differentiate_first_context: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """CxGrad: MAML whose gradients are scaled by factors of a context (https://arxiv.org/abs/2110.10353).

    It does what the official code does (https://github.com/shlee625/CxGrad).

    Args:
      model: a ``flax.linen`` classifier with a normalisation behind each of its convolutions.
      inner_lr: alpha, the inner learning rate of the kernels and the head.
      context_lr: beta, the learning rate of the context.
      num_steps: the number of inner steps after the first update of the context.
      context_dim: the size of the context and of the generator's hidden layer.
      first_order: whether the outer loop treats inner gradients as constants. It still differentiates the scalings.
      context_update: ``"task"`` lets the context accumulate over the steps (Algorithm 1). ``"step"`` restarts it from
        zero before every step, by a pass of its own (the other row of Table 3).
      differentiate_first_context: whether the outer gradient passes through the first update of the context. In the
        official code it does not (that update is a constant); by the paper's text it does.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters are scaled, adapted, or learned by the outer loop only (``default_labels``).
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "generator": {"hidden": ..., "output": ...}}``. Trace: ``"support_loss" [steps]``;
    ``"gamma" [steps, L]`` and ``"context" [steps, context_dim]``, with which each step scales; ``"fast"``, the scaled
    kernels and the head; ``"gradient_norm/LAYER" [steps]``, the norms of the gradients with respect to these; and
    ``"first_loss"``, the loss of the context's own pass, ``[]``, or ``[steps]`` with ``context_update="step"``.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no kernel is scaled.
    """

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        weights, frozen, kernels = split_by_label(params["model"], param_labels, classes)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)

        def scaled_gradients(weights, context):
            """IGS: one forward and one backward pass give (loss, gamma, w_hat, dL/dw_hat, dL/dnu)."""

            def igs(context):
                gamma = scaling_factors(params["generator"], context)
                return rescale(unit_kernels(weights, kernels), kernels, gamma), gamma

            w_hat, to_context, gamma = jax.vjp(igs, context, has_aux=True)
            loss, gradients = gradients_at(w_hat)
            (context_gradient,) = to_context(gradients)
            return loss, gamma, w_hat, gradients, constant_if(first_order, context_gradient)

        def first_context(weights):
            """The context after its first update, which starts from zero, and the loss at zero."""
            zero = no_context(params["generator"])
            loss, _, _, _, gradient = scaled_gradients(weights, zero)
            return sgd(zero, constant_if(not differentiate_first_context, gradient), context_lr), loss

        def step(state, _):
            weights, context = state
            trace = {}
            if context_update == "step":
                context, trace["first_loss"] = first_context(weights)
            loss, gamma, w_hat, gradients, context_gradient = scaled_gradients(weights, context)
            trace |= {"support_loss": loss, "gamma": gamma, "context": context, "fast": w_hat}
            trace |= traced_norms(gradients)
            return (sgd(w_hat, gradients, inner_lr), sgd(context, context_gradient, context_lr)), trace

        context, first_loss = first_context(weights)
        (weights, _), trace = scan_steps(step, (weights, context), num_steps, remat)
        return Adapted(merge(weights, frozen), {"first_loss": first_loss, **trace})

    init_generator = generator_init(model, param_labels, context_dim)
    return gradient_based(model, adapt, init_generator, param_labels=param_labels, query_statistics=query_statistics)


def generator_init(model: nn.Module, param_labels: ParamLabels, context_dim: int) -> InitExtra:
    """Makes the function that draws ``{"generator": ...}``, the parameters of ``scaling_factors`` for scaled kernels.

    It raises a ``UserError`` if no kernel is scaled.
    """

    def init_generator(key, model_params, images):
        num_scaled = len(scaled_kernels(model_params, param_labels, module_classes(model, images)))
        return {"generator": init_mlp(key, context_dim, context_dim, num_scaled, dtype_of(model_params))}

    return init_generator


def scaled_kernels(model_params: Params, param_labels: ParamLabels, classes: Mapping[str, ModuleClass]) -> list[str]:
    """The paths of a model's kernels that are scaled.

    Raises:
      UserError: no kernel is scaled.
    """
    paths = split_by_label(model_params, param_labels, classes)[2]
    if not paths:
        raise UserError("the model has no kernel to scale: param_labels gave 'scaled' for no path")
    return paths


def no_context(generator: dict[str, Any]) -> jax.Array:
    """The context before its first update: zeros ``[context_dim]``."""
    return jnp.zeros_like(generator["hidden"]["bias"])


def scaling_factors(generator: dict[str, Any], context: jax.Array) -> jax.Array:
    """gamma(nu), Eq. 8: one positive factor for each scaled kernel, ``[L]``, of ``context [context_dim]``."""
    return jax.nn.softplus(mlp(generator, context))


def unit_kernels(weights: Fast, paths: list[str]) -> Fast:
    """Divides the kernels of ``weights`` at ``paths`` by their norms."""
    return {**weights, **{path: weights[path] / jnp.linalg.norm(weights[path].reshape(-1)) for path in paths}}


def rescale(weights: Fast, paths: list[str], factors: jax.Array) -> Fast:
    """Multiplies the kernel of ``weights`` at each of ``paths`` by its own one of ``factors [L]``."""
    return {**weights, **{path: factors[i] * weights[path] for i, path in enumerate(paths)}}
