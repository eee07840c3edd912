"""MAML: model-agnostic meta-learning (Finn, Abbeel and Levine, ICML 2017; https://arxiv.org/abs/1703.03400).

    theta_0 = theta,   theta_{k+1} = theta_k - alpha * dL(theta_k; S)/dtheta_k,   meta loss L(theta_K; Q)

S is the support set of an episode, and Q is its query set. The defaults are those of the baseline in CxGrad's official
code (https://github.com/shlee625/CxGrad).
"""

import flax.linen as nn

from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._labels import ParamLabels, default_labels, merge, split_by_label
from cxgrad_jax.learners._meta_learner import Adapt, Adapted, MetaLearner
from cxgrad_jax.learners._modules import module_classes
from cxgrad_jax.learners._spec import described


@described
def maml(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    num_steps: int = 5,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """MAML: a start from which a few gradient steps suffice (https://arxiv.org/abs/1703.03400).

    The support loss is the mean cross-entropy. By default it takes 5 steps in training and test, and normalisation does
    not adapt.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: alpha, the inner learning rate.
      num_steps: the number of inner steps.
      first_order: whether the outer loop treats inner gradients as constants.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters adapt, ``(path, value) -> "scaled" | "adapted" | "meta"``. The first two mean the
        same here.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ...}``. Trace: ``"support_loss"`` and ``"gradient_norm/LAYER" [num_steps]`` and
    ``"fast"``, before each update.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no parameter adapts.
    """

    adapt = gradient_steps(model, inner_lr, num_steps, first_order, remat, param_labels)
    return gradient_based(model, adapt, param_labels=param_labels, query_statistics=query_statistics)


def gradient_steps(
    model: nn.Module, inner_lr: float, num_steps: int, first_order: bool, remat: bool, param_labels: ParamLabels
) -> Adapt:
    """Makes the inner loop ``(params, support_images, support_labels) -> Adapted``. The arguments are ``maml``'s."""

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        theta, frozen, _ = split_by_label(params["model"], param_labels, classes)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)

        def step(theta, _):
            support_loss, gradients = gradients_at(theta)
            trace = {"support_loss": support_loss, "fast": theta, **traced_norms(gradients)}
            return sgd(theta, gradients, inner_lr), trace

        theta, trace = scan_steps(step, theta, num_steps, remat)
        return Adapted(merge(theta, frozen), trace)

    return adapt
