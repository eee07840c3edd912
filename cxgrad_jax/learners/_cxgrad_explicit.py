"""CxGrad that scales the gradients themselves: the explicit way of section 3.2 (https://arxiv.org/abs/2110.10353).

    gamma(nu) = softplus(W2 relu(W1 nu + b1) + b2)                        scaling factors of the context, Eq. 8
    u_l = w_l / ||w_l||,   h = dL/du                                      one pass at the kernels' directions
    w(nu) = gamma(nu) u - alpha h / gamma(nu),   psi' = psi - alpha dL/dpsi      the step of IGS, except for epsilon
    nu <- nu - beta dL(w(nu), psi'; S)/dnu,   then   w <- w(nu),   psi <- psi'   a second pass, after the step

The paper sets this way aside because of its second pass. Here the context follows the loss after the step that its
factors make. That is a signal of first order. In ``cxgrad`` the context only gets what the normalisation's epsilon
leaves.
"""

import flax.linen as nn
import jax

from cxgrad_jax.learners._cxgrad import generator_init, no_context, rescale, scaling_factors, unit_kernels
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import (
    constant_if,
    scan_steps,
    sgd,
    support_gradients,
    support_loss,
    traced_norms,
)  # fmt: skip
from cxgrad_jax.learners._labels import ParamLabels, default_labels, merge, split_by_label
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._modules import module_classes
from cxgrad_jax.learners._spec import described


@described
def cxgrad_explicit(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    context_lr: float = 1.0,
    num_steps: int = 5,
    context_dim: int = 100,
    first_order: bool = False,
    context_update: str = "task",
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """CxGrad with explicit scaling, the other way of section 3.2 (https://arxiv.org/abs/2110.10353).

    Each step has two forward and two backward passes.

    The arguments and the meta-parameters are those of ``cxgrad``. With ``context_update="step"`` the context restarts
    from zero before every step. The trace is that of ``cxgrad`` with three differences: the context and the factors are
    those after the update of each step, there is no ``"first_loss"``, and ``"trial_loss" [steps]`` is the loss after a
    step with the factors before that update.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no kernel is scaled.
    """

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        weights, frozen, kernels = split_by_label(params["model"], param_labels, classes)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        loss_at = support_loss(model, frozen, support_images, support_labels)
        zero = no_context(params["generator"])

        def step(state, _):
            weights, context = state
            context = zero if context_update == "step" else context
            directions = unit_kernels(weights, kernels)
            loss, gradients = gradients_at(directions)

            def stepped(context):
                gamma = scaling_factors(params["generator"], context)
                scaled = rescale(directions, kernels, gamma)
                scaled_gradients = rescale(gradients, kernels, 1 / gamma)
                return sgd(scaled, scaled_gradients, inner_lr), gamma, scaled, scaled_gradients

            trial_loss, context_gradient = jax.value_and_grad(lambda nu: loss_at(stepped(nu)[0]))(context)
            context = sgd(context, constant_if(first_order, context_gradient), context_lr)
            weights, gamma, scaled, scaled_gradients = stepped(context)
            trace = {"support_loss": loss, "gamma": gamma, "context": context, "fast": scaled, "trial_loss": trial_loss}
            return (weights, context), trace | traced_norms(scaled_gradients)

        (weights, _), trace = scan_steps(step, (weights, zero), num_steps, remat)
        return Adapted(merge(weights, frozen), trace)

    init_generator = generator_init(model, param_labels, context_dim)
    return gradient_based(model, adapt, init_generator, param_labels=param_labels, query_statistics=query_statistics)
