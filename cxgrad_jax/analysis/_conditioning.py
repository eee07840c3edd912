"""How far CxGrad's factors depend on the task, and what that is worth.

Where a batch normalisation follows, the loss depends on gamma only through the epsilon. The context's gradient
therefore nearly vanishes, and gamma hardly differs between tasks. A kernel of norm gamma moves by alpha / gamma^2 times
the gradient with respect to its direction, so gamma is a learned rate for each layer (``learners._cxgrad``).

These functions measure that: gamma and the norm of the context in each step, and the inner loop run again with chosen
factors.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.analysis._features import adapted_to, trace_of
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import Adapted, MetaLearner, default_labels, merge, module_classes, split_by_label
from cxgrad_jax.learners._checks import check_images, check_labels
from cxgrad_jax.learners._cxgrad import no_context, rescale, scaling_factors, unit_kernels
from cxgrad_jax.learners._inner_loop import scan_steps, sgd, support_gradients
from cxgrad_jax.learners._labels import ParamLabels
from cxgrad_jax.learners._model import Params
from cxgrad_jax.learners._modules import num_outputs


class Conditioning(NamedTuple):
    """Factors and context in one episode, for L scaled kernels.

    Attributes:
      gamma: the episode's factors in each inner step, ``[steps, L]``.
      gamma_at_zero: the factors at the context zero, which all episodes share, ``[L]``.
      context_norm: ||nu|| in each inner step, ``[steps]``.
    """

    gamma: jax.Array
    gamma_at_zero: jax.Array
    context_norm: jax.Array


def conditioning(learner: MetaLearner, params: Params, episode: Episode) -> Conditioning:
    """The factors and the context to which ``learners.cxgrad`` comes in an episode.

    Raises:
      UserError: the learner has no context that generates factors.
    """
    trace = trace_of(adapted_to(learner, params, episode))
    if not {"gamma", "context"} <= {*trace}:
        raise UserError('this learner has no conditioning: adapt returns no trace["gamma"] and trace["context"]')
    at_zero = scaling_factors(params["generator"], no_context(params["generator"]))
    return Conditioning(trace["gamma"], at_zero, jnp.linalg.norm(trace["context"], axis=-1))


def adapt_with_factors(
    model: nn.Module,
    params: Params,
    support_images: jax.Array,
    support_labels: jax.Array,
    gamma: jax.Array,
    *,
    inner_lr: float = 0.01,
    explicit: bool = False,
    param_labels: ParamLabels = default_labels,
) -> Adapted:
    """The inner loop of ``cxgrad`` with given factors, such as those of another episode.

    With the episode's own factors it gives the result of ``cxgrad``, or with ``explicit`` that of ``cxgrad_explicit``.
    The other arguments are those of ``cxgrad``.

    Args:
      model: a ``flax.linen`` classifier.
      params: meta-parameters of ``cxgrad``.
      support_images: ``[N, H, W, C]``.
      support_labels: ``[N]``.
      gamma: the factors, ``[steps, L]``.
      inner_lr: alpha, the inner learning rate.
      explicit: whether the gradients are scaled instead of the kernels.
      param_labels: which parameters are scaled and adapted.

    Returns:
      The adapted parameters, with an empty trace.

    Raises:
      UserError: ``gamma`` has the wrong shape, or the images and labels are not a support set.
    """
    support_images = check_images("support_images", support_images)
    support_labels = check_labels(
        "support_labels", support_labels, len(support_images), num_outputs(model, support_images)
    )
    gamma = jnp.asarray(gamma)
    classes = module_classes(model, support_images)
    weights, frozen, scaled_paths = split_by_label(params["model"], param_labels, classes)
    if gamma.ndim != 2 or gamma.shape[1] != len(scaled_paths):
        raise UserError(f"gamma has shape {list(gamma.shape)}; expected [steps, {len(scaled_paths)}], one a kernel")
    gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order=True)

    def step(weights, factors):
        directions = unit_kernels(weights, scaled_paths)
        scaled = rescale(directions, scaled_paths, factors)
        if explicit:
            gradients = rescale(gradients_at(directions)[1], scaled_paths, 1 / factors)
        else:
            gradients = gradients_at(scaled)[1]
        return sgd(scaled, gradients, inner_lr), None

    weights, _ = scan_steps(step, weights, len(gamma), remat=False, per_step=gamma)
    return Adapted(merge(weights, frozen), {})
