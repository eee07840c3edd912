"""Meta-SGD (Li et al., 2017; https://arxiv.org/abs/1707.09835): MAML with a learned rate for every single parameter.

    theta' = theta - alpha * dL(theta; S)/dtheta,   meta loss L(theta'; Q)          alpha of theta's shape, elementwise

The outer loop learns theta and alpha together. The method's authors have published no code. Facts are from
https://github.com/jik0730/Meta-SGD-pytorch: it takes one step, and every parameter adapts, also scale and shift of
normalisations. alpha starts at 1e-3 everywhere and may change its sign. The paper's own start of alpha, said to be
uniform in [0.005, 0.1], is not verified.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._labels import ADAPTED, ParamLabels, by_path, merge, split_by_label
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._modules import module_classes
from cxgrad_jax.learners._spec import described


def every_parameter(path: str, value: jax.Array) -> str:
    """``"adapted"`` for every parameter."""
    del path, value
    return ADAPTED


@described
def meta_sgd(
    model: nn.Module,
    *,
    initial_lr: float = 0.1,
    num_steps: int = 1,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = every_parameter,
    query_statistics: str = "query",
) -> MetaLearner:
    """Meta-SGD: MAML with a learned rate for every single parameter (https://arxiv.org/abs/1707.09835).

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      initial_lr: the initial value of every entry of alpha. It is this package's choice; the authors publish no code.
      num_steps: the number of inner steps, which share alpha.
      first_order: whether the outer loop treats inner gradients as constants.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters adapt (``default_labels`` leaves normalisation out).
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "inner_lr": alpha, in the structure of the model's adapted part}``. Trace:
    ``"support_loss" [num_steps]``, before each update.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no parameter adapts.
    """

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        theta, frozen, _ = split_by_label(params["model"], param_labels, classes)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        alpha = by_path(params["inner_lr"])

        def step(theta, _):
            support_loss, gradients = gradients_at(theta)
            trace = {"support_loss": support_loss, "fast": theta, **traced_norms(gradients)}
            return sgd(theta, gradients, alpha), trace

        theta, trace = scan_steps(step, theta, num_steps, remat)
        return Adapted(merge(theta, frozen), trace)

    def init_rates(key, model_params, images):
        theta, _, _ = split_by_label(model_params, param_labels, module_classes(model, images))
        return {"inner_lr": merge({path: jnp.full_like(value, initial_lr) for path, value in theta.items()})}

    return gradient_based(model, adapt, init_rates, param_labels=param_labels, query_statistics=query_statistics)
