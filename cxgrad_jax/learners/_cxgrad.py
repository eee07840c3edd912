"""CxGrad: contextual gradient scaling (Lee, Lee and Song, WACV 2022), Algorithms 1 and 2.

    gamma = softplus(W2 relu(W1 nu + b1) + b2)                        scaling factors of the context, Eq. 8
    w_hat_l = gamma_l w_l / ||w_l||                                   implicit gradient scaling (IGS), Eq. 6
    w <- w_hat - alpha dL/dw_hat,   psi <- psi - alpha dL/dpsi        one inner step on the support set
    nu <- nu - beta dL/dnu                                            of the context, Eq. 7

A convolution is followed by a normalisation, so scaling its kernel leaves the output unchanged and divides its gradient
by gamma (Eq. 5). The loss would not depend on gamma, nor gamma on the task, but for the epsilon of the normalisation.

Section 3.2 names an alternative and sets it aside for its second pass: scale the gradients themselves. In the option
``conditioning="explicit"`` the context follows the loss behind the step that its factors make, a signal of first order:

    u_l = w_l / ||w_l||,   h = dL/du,   w(nu) = gamma(nu) u - alpha h / gamma(nu)      the step of IGS, but for epsilon
    nu <- nu - beta dL(w(nu), psi'; S)/dnu,   then   w <- w(nu)                         psi' = psi - alpha dL/dpsi
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._base import (
    Fast,
    Labels,
    MetaLearner,
    Task,
    default_labels,
    gradient_based,
    merge,
    split_by_label,
)  # fmt: skip
from cxgrad_jax.learners._inner_loop import (
    constant_if,
    gradient_norms,
    scan_steps,
    sgd,
    support_gradients,
    support_loss,
)  # fmt: skip
from cxgrad_jax.learners._mlp import init_mlp, mlp


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
    conditioning: str = "implicit",
    remat: bool = False,
    labels: Labels = default_labels,
) -> MetaLearner:
    """CxGrad as the official code runs it.

    Args:
      model: a ``flax.linen`` classifier with normalisation behind its convolutions.
      inner_lr: alpha, of the kernels and the head.
      context_lr: beta, of the context.
      num_steps: inner steps, after the first update of the context.
      context_dim: size of the context and of the generator's hidden layer.
      first_order: treat inner gradients as constants; the chain of scalings stays differentiated.
      context_update: ``"task"``: the context accumulates over the steps (Algorithm 1); ``"step"``: it restarts from
        zero before every step, by a pass of its own (the other row of Table 3).
      differentiate_first_context: whether the outer gradient passes through the update from zero. The official code
        says no (that update is a constant), the paper's text yes. With explicit conditioning it always does.
      conditioning: ``"implicit"``: the paper's; ``"explicit"``: the context is updated through the scaled gradients,
        before each step, by two forward and backward passes a step (see above).
      remat: recompute inner steps in the outer backward pass to save memory.
      labels: which parameters are scaled, adapted, or meta-learned only, by path (``base.default_labels``).

    Meta-parameters: ``{"model": ..., "generator": {"hidden": ..., "output": ...}}``. Trace: ``"support_loss" [steps]``,
    ``"gamma" [steps, L]`` and ``"context" [steps, context_dim]`` as used to scale in each step, ``"fast"``, the scaled
    kernels and the head, and ``"gradient_norm/LAYER" [steps]``, of the gradients by them; ``"first_loss" [steps]``
    where ``context_update="step"``, ``[]`` otherwise: the loss of the context's own pass. Explicit: no
    ``"first_loss"``, and ``"trial_loss" [steps]``, behind the step by the factors before the context's update.
    """
    if context_update not in ("task", "step"):
        raise UserError(f"context_update is {context_update!r}; expected 'task' or 'step'")
    if conditioning not in ("implicit", "explicit"):
        raise UserError(f"conditioning is {conditioning!r}; expected 'implicit' or 'explicit'")

    def adapt(params, support_images, support_labels):
        weights, frozen, scaled_paths = split_by_label(params["model"], labels)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        loss_at = support_loss(model, frozen, support_images, support_labels)
        generator = params["generator"]
        no_context = jnp.zeros_like(generator["hidden"]["bias"])

        def scaled_gradients(weights, context):
            """One forward and one backward pass for both kinds of parameters: (loss, gamma, w_hat, dL/dw_hat,
            dL/dnu)."""
            gamma, gamma_vjp = jax.vjp(lambda nu: scaling_factors(generator, nu), context)
            directions = unit_kernels(weights, scaled_paths)
            scaled = rescale(directions, scaled_paths, gamma)
            loss, gradients = gradients_at(scaled)
            gamma_gradient = jnp.stack([jnp.vdot(gradients[path], directions[path]) for path in scaled_paths])
            (context_gradient,) = gamma_vjp(gamma_gradient)
            return loss, gamma, scaled, gradients, constant_if(first_order, context_gradient)

        def first_context(weights):
            """The context after its update from zero, and the loss there."""
            loss, _, _, _, gradient = scaled_gradients(weights, no_context)
            if not differentiate_first_context:
                gradient = jax.lax.stop_gradient(gradient)
            return -context_lr * gradient, loss

        def step(state, _):
            weights, context = state
            trace = {}
            if context_update == "step":
                context, trace["first_loss"] = first_context(weights)
            loss, gamma, scaled, gradients, context_gradient = scaled_gradients(weights, context)
            trace |= {"support_loss": loss, "gamma": gamma, "context": context, "fast": scaled}
            trace |= gradient_norms(gradients)
            return (sgd(scaled, gradients, inner_lr), sgd(context, context_gradient, context_lr)), trace

        def explicit_step(state, _):
            weights, context = state
            if context_update == "step":
                context = no_context
            directions = unit_kernels(weights, scaled_paths)
            loss, gradients = gradients_at(directions)

            def stepped(nu):
                gamma = scaling_factors(generator, nu)
                scaled = rescale(directions, scaled_paths, gamma)
                scaled_gradients = rescale(gradients, scaled_paths, 1 / gamma)
                return sgd(scaled, scaled_gradients, inner_lr), gamma, scaled, scaled_gradients

            trial_loss, context_gradient = jax.value_and_grad(lambda nu: loss_at(stepped(nu)[0]))(context)
            context = sgd(context, constant_if(first_order, context_gradient), context_lr)
            weights, gamma, scaled, scaled_gradients = stepped(context)
            trace = {"support_loss": loss, "gamma": gamma, "context": context, "fast": scaled, "trial_loss": trial_loss}
            return (weights, context), trace | gradient_norms(scaled_gradients)

        if conditioning == "explicit":
            (weights, _), trace = scan_steps(explicit_step, (weights, no_context), num_steps, remat)
            return Task(merge(weights, frozen), trace)
        context, first_loss = first_context(weights)
        (weights, _), trace = scan_steps(step, (weights, context), num_steps, remat)
        return Task(merge(weights, frozen), {"first_loss": first_loss, **trace})

    def init_generator(key, model_params, dtype):
        num_scaled = len(split_by_label(model_params, labels)[2])
        if num_scaled == 0:
            raise UserError("the model has no kernel to scale: labels() gave 'scaled' for no path")
        return {"generator": init_mlp(key, context_dim, context_dim, num_scaled, dtype)}

    return gradient_based(model, adapt, init_generator)


def scaling_factors(generator: dict, context: jax.Array) -> jax.Array:
    """gamma(nu), Eq. 8: one positive factor ``[L]`` a scaled kernel from ``context [context_dim]``."""
    return jax.nn.softplus(mlp(generator, context))


def unit_kernels(weights: Fast, paths: list[str]) -> Fast:
    """``weights`` whose kernels at ``paths`` have norm 1."""
    return {**weights, **{path: weights[path] / jnp.linalg.norm(weights[path].reshape(-1)) for path in paths}}


def rescale(weights: Fast, paths: list[str], factors: jax.Array) -> Fast:
    """``weights`` with the kernel at each of ``paths`` times its own of ``factors [L]``."""
    return {**weights, **{path: factors[i] * weights[path] for i, path in enumerate(paths)}}
