"""MAML: model-agnostic meta-learning (Finn et al., ICML 2017), as CxGrad's official code runs its baseline.

    theta_0 = theta,   theta_{k+1} = theta_k - alpha * dL(theta_k; S)/dtheta_k,   meta loss L(theta_K; Q)

with the support set S and the query set Q of a task.
"""

import flax.linen as nn

from cxgrad_jax.learners._base import Labels, MetaLearner, Task, default_labels, gradient_based, merge, split_by_label
from cxgrad_jax.learners._inner_loop import gradient_norms, scan_steps, sgd, support_gradients


def maml(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    num_steps: int = 5,
    first_order: bool = False,
    remat: bool = False,
    labels: Labels = default_labels,
) -> MetaLearner:
    """MAML with the mean support cross-entropy, 5 steps in training and test, and normalisation not adapted.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: the inner learning rate alpha.
      num_steps: inner steps.
      first_order: treat inner gradients as constants in the outer gradient.
      remat: recompute inner steps in the outer backward pass to save memory.
      labels: which parameters adapt, ``(path, leaf) -> "scaled" | "adapted" | "meta"``; the first two alike here.

    Meta-parameters: ``{"model": ...}``. Trace: ``"support_loss"`` and ``"gradient_norm/LAYER"
    [num_steps]`` and ``"fast"``, before each update.
    """

    def adapt(params, support_images, support_labels):
        theta, frozen, _ = split_by_label(params["model"], labels)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)

        def step(theta, _):
            support_loss, gradients = gradients_at(theta)
            trace = {"support_loss": support_loss, "fast": theta, **gradient_norms(gradients)}
            return sgd(theta, gradients, inner_lr), trace

        theta, trace = scan_steps(step, theta, num_steps, remat)
        return Task(merge(theta, frozen), trace)

    return gradient_based(model, adapt)
