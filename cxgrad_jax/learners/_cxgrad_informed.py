"""CxGrad whose factors come from the support set's weights and gradients: an unpublished experiment of this project.

    u_l = w_l / ||w_l||,   h = dL/du                                             one pass at the kernels' directions
    s(x) = (log(1 + ||x||), cos(x, 1))                                           norm and mean of a kernel x
    gamma = softplus(W2 relu(W1 tau + b1) + b2),   tau = (s(w_1), s(h_1), ..., s(w_L), s(h_L))
    w <- gamma u - alpha h / gamma,   psi <- psi - alpha dL/dpsi                 the step of IGS, except for epsilon

In ``cxgrad`` gamma comes from a context that hardly moves, and is nearly the same in all tasks. Here it comes from
numbers that differ between tasks, like the states of ``alfa`` and ``l2f``. The step is that of ``cxgrad_explicit``.
cos(x, 1) = sqrt(n) mean(x) / ||x|| is the mean of the n entries of x without their size. As in ``alfa`` and ``l2f``,
s(h) is a constant for the outer loop.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._cxgrad import rescale, scaled_kernels, scaling_factors, unit_kernels
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._labels import ParamLabels, default_labels, merge, split_by_label
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._mlp import init_mlp
from cxgrad_jax.learners._model import dtype_of
from cxgrad_jax.learners._modules import module_classes
from cxgrad_jax.learners._spec import described

HIDDEN = 100  # hidden units of the generator, as many as in cxgrad's


@described
def cxgrad_informed(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    num_steps: int = 5,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """CxGrad conditioned on norms and means of weights and gradients.

    It is an experiment of this project, not a published method.

    Args:
      model: a ``flax.linen`` classifier with a normalisation behind each of its convolutions.
      inner_lr: alpha, the inner learning rate of the kernels and the head.
      num_steps: the number of inner steps.
      first_order: whether the outer loop treats inner gradients as constants. It still differentiates the scalings.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters are scaled, adapted, or learned by the outer loop only (``default_labels``).
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "generator": {"hidden": ..., "output": ...}}``. Trace: ``"support_loss" [steps]``;
    ``"tau" [steps, 4 L]`` and ``"gamma" [steps, L]`` of each step; ``"fast"``, the scaled kernels and the head; and
    ``"gradient_norm/LAYER" [steps]``, the norms of the gradients with respect to these.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no kernel is scaled.
    """

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        weights, frozen, kernels = split_by_label(params["model"], param_labels, classes)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)

        def step(weights, _):
            directions = unit_kernels(weights, kernels)
            loss, gradients = gradients_at(directions)
            sources = weights, jax.lax.stop_gradient(gradients)
            tau = jnp.concatenate([norm_and_cosine(each[path]) for path in kernels for each in sources])
            gamma = scaling_factors(params["generator"], tau)
            scaled, scaled_gradients = rescale(directions, kernels, gamma), rescale(gradients, kernels, 1 / gamma)
            trace = {"support_loss": loss, "tau": tau, "gamma": gamma, "fast": scaled, **traced_norms(scaled_gradients)}
            return sgd(scaled, scaled_gradients, inner_lr), trace

        weights, trace = scan_steps(step, weights, num_steps, remat)
        return Adapted(merge(weights, frozen), trace)

    def init_extra(key, model_params, images):
        kernels = scaled_kernels(model_params, param_labels, module_classes(model, images))
        return {"generator": init_mlp(key, 4 * len(kernels), HIDDEN, len(kernels), dtype_of(model_params))}

    return gradient_based(model, adapt, init_extra, param_labels=param_labels, query_statistics=query_statistics)


def norm_and_cosine(kernel: jax.Array) -> jax.Array:
    """s of the equations above: the logarithm of 1 + the norm, and the cosine with a kernel of ones, ``[2]``."""
    entries = kernel.reshape(-1)
    norm = jnp.linalg.norm(entries)
    cosine = entries.size**0.5 * jnp.mean(entries) / jnp.maximum(norm, jnp.finfo(kernel.dtype).tiny)
    return jnp.stack([jnp.log1p(norm), cosine])
