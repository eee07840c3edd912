"""L2F: learning to forget (Baik, Hong and Lee, CVPR 2020; https://arxiv.org/abs/1906.05895).

    e = (mean dL(theta; S)/dtheta_1, ..., mean dL(theta; S)/dtheta_n)        one constant number for each tensor
    gamma = sigmoid(W2 relu(W1 e + b1) + b2)
    theta_{j,0} = gamma_j theta_j,   then MAML

This is MAML from a start that each episode attenuates. A kernel that a normalisation follows gives nearly the same
output when it is attenuated, and its gradient is larger by 1/gamma. Therefore only the head forgets. For kernels gamma
is a relative step size.

Facts from the authors' code (https://github.com/baiksung/L2F): all adapted tensors are attenuated, also the head's
weight and bias. Gradients are of first order in epochs 0 to 10.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._gradient_based import gradient_based, predict_adapted, with_query_statistics
from cxgrad_jax.learners._inner_loop import first_order_at, scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._labels import Fast, ParamLabels, default_labels, merge, split_by_label
from cxgrad_jax.learners._losses import query_loss
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._mlp import init_mlp, mlp
from cxgrad_jax.learners._model import dtype_of
from cxgrad_jax.learners._modules import module_classes
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
    """L2F: MAML from a start that each episode attenuates (https://arxiv.org/abs/1906.05895).

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: alpha, the learning rate of MAML's steps.
      num_steps: the number of inner steps.
      first_order_epochs: the number of epochs at the start of training in which the outer loop treats inner gradients
        as constants. The official code has 11.
      epoch_iterations: the number of outer iterations in an epoch.
      first_order: whether the outer loop always treats inner gradients as constants. The attenuation stays
        differentiated.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters adapt and are attenuated.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "attenuator": {"hidden": ..., "output": ...}}``. Trace: ``"support_loss"
    [steps]``, and ``"gamma" [n]`` and ``"embedding" [n]``, which is e, in the order of ``split_by_label``.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no parameter adapts.
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
        adapt_now = with_query_statistics(model, adapt_by(now), query_statistics)
        return query_loss(adapt_now, predict_adapted(model))(params, episode)

    def init_attenuator(key, model_params, images):
        n = len(split_by_label(model_params, param_labels, module_classes(model, images))[0])
        return {"attenuator": init_mlp(key, n, n, n, dtype_of(model_params))}

    return gradient_based(model, adapt_by(first_order), init_attenuator, loss, param_labels, query_statistics)


def tensor_means(tensors: Fast, paths: list[str]) -> jax.Array:
    """The mean of each tensor, ``[n]`` in the order of ``paths``."""
    return jnp.stack([jnp.mean(tensors[path]) for path in paths])
