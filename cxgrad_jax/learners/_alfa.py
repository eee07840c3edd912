"""ALFA: adaptive learning of hyperparameters for fast adaptation (Baik et al., NeurIPS 2020), on MAML.

    tau_k = (mean theta_{1,k}, ..., mean theta_{n,k}, mean g_{1,k}, ..., mean g_{n,k}),    g = dL(theta_k; S)/dtheta_k
    A, B = the halves of W2 relu(W1 tau_k + b1) + b2
    theta_{j,k+1} = (1 - B_j beta_{j,k}) theta_{j,k} - A_j alpha_{j,k} g_{j,k}

The outer loop learns alpha and beta for every tensor j and step k. The paper: https://arxiv.org/abs/2011.00209. Facts
from the authors' code (baiksung/ALFA): in tau, the means of the gradients are constants for the outer loop and those of
the weights are not; alpha starts at 0.01 and beta at 0.0005 times that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._base import Adapted, MetaLearner, gradient_based
from cxgrad_jax.learners._inner_loop import scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._l2f import tensor_means
from cxgrad_jax.learners._labels import ParamLabels, by_path, default_labels, merge, split_by_label
from cxgrad_jax.learners._mlp import init_mlp, mlp
from cxgrad_jax.learners._model import dtype_of, module_classes
from cxgrad_jax.learners._spec import described


@described
def alfa(
    model: nn.Module,
    *,
    initial_lr: float = 0.01,
    initial_decay: float = 5e-6,
    num_steps: int = 5,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """ALFA with MAML's learned start.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      initial_lr: where alpha starts.
      initial_decay: where beta starts.
      num_steps: inner steps.
      first_order: the outer loop takes inner gradients for constants.
      remat: compute inner steps anew in the outer backward pass, to save memory.
      param_labels: which parameters adapt.
      query_statistics: by what batch normalisations normalise query images: ``"query"``, their own statistics
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "inner_lr": alpha, "decay": beta, "generator": {"hidden": ..., "output": ...}}``;
    alpha and beta, each ``[num_steps]``, have the structure of the model's adapted part. Trace: ``"support_loss"
    [steps]``, ``"tau" [steps, 2 n]``, and ``"A"`` and ``"B" [steps, n]``, in the order of ``split_by_label``.
    """

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        theta, frozen, _ = split_by_label(params["model"], param_labels, classes)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        tensors = list(theta)

        def step(theta, rates_of_step):
            alpha, beta = rates_of_step
            support_loss, g = gradients_at(theta)
            of_gradients = jax.lax.stop_gradient(tensor_means(g, tensors))
            tau = jnp.concatenate([tensor_means(theta, tensors), of_gradients])
            A, B = jnp.split(mlp(params["generator"], tau), 2)
            decayed = {path: (1 - B[j] * beta[path]) * theta[path] for j, path in enumerate(tensors)}
            rates = {path: A[j] * alpha[path] for j, path in enumerate(tensors)}
            trace = {"support_loss": support_loss, "fast": theta, "tau": tau, "A": A, "B": B}
            return sgd(decayed, g, rates), {**trace, **traced_norms(g)}

        alpha_and_beta = by_path(params["inner_lr"]), by_path(params["decay"])
        theta, trace = scan_steps(step, theta, num_steps, remat, per_step=alpha_and_beta)
        return Adapted(merge(theta, frozen), trace)

    def init_extra(key, model_params, images):
        theta, _, _ = split_by_label(model_params, param_labels, module_classes(model, images))

        def everywhere(value):
            return merge({path: jnp.full(num_steps, value, dtype_of(model_params)) for path in theta})

        generator = init_mlp(key, 2 * len(theta), 2 * len(theta), 2 * len(theta), dtype_of(model_params))
        return {"inner_lr": everywhere(initial_lr), "decay": everywhere(initial_decay), "generator": generator}

    return gradient_based(model, adapt, init_extra, param_labels=param_labels, query_statistics=query_statistics)
