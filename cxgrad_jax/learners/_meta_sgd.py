"""Meta-SGD (Li et al., 2017): MAML with a learned rate for every single parameter.

    theta' = theta - alpha * dL(theta; S)/dtheta,   meta loss L(theta'; Q)          alpha of theta's shape, elementwise

with theta and alpha learned together. There is no code of the method's authors. Facts are from
jik0730/Meta-SGD-pytorch: one step, every parameter adapts (scale and shift of normalisations too), alpha starts at 1e-3
everywhere and may change its sign. The paper's own start of alpha (recalled as uniform in [0.005, 0.1]) is not
verified.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._base import (
    ADAPTED,
    Labels,
    MetaLearner,
    Task,
    by_path,
    gradient_based,
    merge,
    split_by_label,
)  # fmt: skip
from cxgrad_jax.learners._inner_loop import gradient_norms, scan_steps, sgd, support_gradients


def every_parameter(path: str, leaf: jax.Array) -> str:
    """``"adapted"``, whatever the parameter."""
    del path, leaf
    return ADAPTED


def meta_sgd(
    model: nn.Module,
    *,
    initial_lr: float = 0.1,
    num_steps: int = 1,
    first_order: bool = False,
    remat: bool = False,
    labels: Labels = every_parameter,
) -> MetaLearner:
    """Meta-SGD with the mean support cross-entropy.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      initial_lr: where every entry of alpha starts; a choice of this package's, see above.
      num_steps: inner steps, which share alpha.
      first_order: treat inner gradients as constants in the outer gradient.
      remat: recompute inner steps in the outer backward pass to save memory.
      labels: which parameters adapt (``base.default_labels`` leaves normalisation out).

    Meta-parameters: ``{"model": ..., "inner_lr": alpha, as the adapted part of the model}``. Trace: ``"support_loss"
    [num_steps]``, before each update.
    """

    def adapt(params, support_images, support_labels):
        theta, frozen, _ = split_by_label(params["model"], labels)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        alpha = by_path(params["inner_lr"])

        def step(theta, _):
            support_loss, gradients = gradients_at(theta)
            trace = {"support_loss": support_loss, "fast": theta, **gradient_norms(gradients)}
            return sgd(theta, gradients, alpha), trace

        theta, trace = scan_steps(step, theta, num_steps, remat)
        return Task(merge(theta, frozen), trace)

    def init_rates(key, model_params, dtype):
        theta, _, _ = split_by_label(model_params, labels)
        return {"inner_lr": merge({path: jnp.full_like(value, initial_lr) for path, value in theta.items()})}

    return gradient_based(model, adapt, init_rates)
