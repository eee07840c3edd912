"""ALFA: adaptive learning of hyperparameters for fast adaptation (Baik et al., NeurIPS 2020), on MAML.

    tau_k = (mean theta_{1,k}, ..., mean theta_{n,k}, mean g_{1,k}, ..., mean g_{n,k}),    g = dL(theta_k; S)/dtheta_k
    A, B = the halves of W2 relu(W1 tau_k + b1) + b2
    theta_{j,k+1} = (1 - B_j beta_{j,k}) theta_{j,k} - A_j alpha_{j,k} g_{j,k}

with alpha and beta learned for every tensor j and step k. Facts from the authors' code (baiksung/ALFA): the means of
the gradients in tau are constants, those of the weights are not; alpha starts at 0.01 and beta at 0.0005 times that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._base import (
    Labels,
    MetaLearner,
    Task,
    by_path,
    default_labels,
    gradient_based,
    merge,
    split_by_label,
)  # fmt: skip
from cxgrad_jax.learners._inner_loop import gradient_norms, scan_steps, sgd, support_gradients
from cxgrad_jax.learners._l2f import tensor_means
from cxgrad_jax.learners._mlp import init_mlp, mlp


def alfa(
    model: nn.Module,
    *,
    initial_lr: float = 0.01,
    initial_decay: float = 5e-6,
    num_steps: int = 5,
    first_order: bool = False,
    remat: bool = False,
    labels: Labels = default_labels,
) -> MetaLearner:
    """ALFA with MAML's meta-learned start.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      initial_lr: where alpha starts.
      initial_decay: where beta starts.
      num_steps: inner steps.
      first_order: treat inner gradients as constants in the outer gradient.
      remat: recompute inner steps in the outer backward pass to save memory.
      labels: which parameters adapt.

    Meta-parameters: ``{"model": ..., "inner_lr": alpha, "decay": beta, "generator": {"hidden": ..., "output": ...}}``;
    alpha and beta ``[num_steps]`` lie as the adapted part of the model. Trace: ``"support_loss" [steps]``, ``"state"
    [steps, 2 n]``, tau, and ``"alpha"`` and ``"beta" [steps, n]``, A and B, in the order of ``base.split_by_label``.
    """

    def adapt(params, support_images, support_labels):
        theta, frozen, _ = split_by_label(params["model"], labels)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        paths = list(theta)

        def step(theta, of_step):
            support_loss, gradients = gradients_at(theta)
            of_gradients = jax.lax.stop_gradient(tensor_means(gradients, paths))
            state = jnp.concatenate([tensor_means(theta, paths), of_gradients])
            alpha, beta = jnp.split(mlp(params["generator"], state), 2)
            rates = {path: alpha[j] * of_step["inner_lr"][path] for j, path in enumerate(paths)}
            kept = {path: (1 - beta[j] * of_step["decay"][path]) * theta[path] for j, path in enumerate(paths)}
            trace = {"support_loss": support_loss, "fast": theta, "state": state, "alpha": alpha, "beta": beta}
            return sgd(kept, gradients, rates), {**trace, **gradient_norms(gradients)}

        learned = {name: by_path(params[name]) for name in ("inner_lr", "decay")}
        theta, trace = scan_steps(step, theta, num_steps, remat, per_step=learned)
        return Task(merge(theta, frozen), trace)

    def init_extra(key, model_params, dtype):
        theta, _, _ = split_by_label(model_params, labels)

        def everywhere(value):
            return merge({path: jnp.full(num_steps, value, dtype) for path in theta})

        generator = init_mlp(key, 2 * len(theta), 2 * len(theta), 2 * len(theta), dtype)
        return {"inner_lr": everywhere(initial_lr), "decay": everywhere(initial_decay), "generator": generator}

    return gradient_based(model, adapt, init_extra)
