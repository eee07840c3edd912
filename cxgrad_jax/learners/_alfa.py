"""ALFA: adaptive learning of hyperparameters for fast adaptation (Baik et al., NeurIPS 2020), on MAML.

    tau_k = (mean theta_{1,k}, ..., mean theta_{n,k}, mean g_{1,k}, ..., mean g_{n,k}),    g = dL(theta_k; S)/dtheta_k
    A, B = the halves of W2 relu(W1 tau_k + b1) + b2
    theta_{j,k+1} = (1 - B_j beta_{j,k}) theta_{j,k} - A_j alpha_{j,k} g_{j,k}

The outer loop learns alpha and beta for every tensor j and step k. The paper: https://arxiv.org/abs/2011.00209.

Facts from the authors' code (https://github.com/baiksung/ALFA): in tau, the means of the gradients are constants for
the outer loop, and the means of the weights are not. alpha starts at 0.01, and beta at 0.0005 times that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._l2f import tensor_means
from cxgrad_jax.learners._labels import Fast, ParamLabels, by_path, default_labels, merge, split_by_label
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._mlp import init_mlp, mlp
from cxgrad_jax.learners._model import Params, dtype_of
from cxgrad_jax.learners._modules import module_classes
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
    """ALFA: MAML whose inner rates and weight decays a network makes (https://arxiv.org/abs/2011.00209).

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      initial_lr: the initial value of alpha.
      initial_decay: the initial value of beta.
      num_steps: the number of inner steps.
      first_order: whether the outer loop treats inner gradients as constants.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters adapt.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "inner_lr": alpha, "decay": beta, "generator": {"hidden": ..., "output": ...}}``.
    alpha and beta, each ``[num_steps]``, have the structure of the model's adapted part. Trace: ``"support_loss"
    [steps]``, ``"tau" [steps, 2 n]``, and ``"A"`` and ``"B" [steps, n]``, in the order of ``split_by_label``.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no parameter adapts.
    """

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        theta, frozen, _ = split_by_label(params["model"], param_labels, classes)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order)
        paths = list(theta)  # in forward order; after a scan JAX has sorted the dict's keys

        def step(theta, step_rates):
            alpha, beta = step_rates
            support_loss, g = gradients_at(theta)
            gradient_means = jax.lax.stop_gradient(tensor_means(g, paths))
            updated, generated = generated_step(params["generator"], paths, theta, g, gradient_means, alpha, beta)
            return updated, {"support_loss": support_loss, "fast": theta, **generated, **traced_norms(g)}

        alpha_and_beta = by_path(params["inner_lr"]), by_path(params["decay"])
        theta, trace = scan_steps(step, theta, num_steps, remat, per_step=alpha_and_beta)
        return Adapted(merge(theta, frozen), trace)

    def init_extra(key, model_params, images):
        theta, _, _ = split_by_label(model_params, param_labels, module_classes(model, images))
        return init_generated(key, theta, initial_lr, initial_decay, num_steps)

    return gradient_based(model, adapt, init_extra, param_labels=param_labels, query_statistics=query_statistics)


def generated_step(
    generator: Params, paths: list[str], theta: Fast, g: Fast, gradient_means: jax.Array, alpha: Fast, beta: Fast
) -> tuple[Fast, dict[str, jax.Array]]:
    """Computes theta_{k+1} of the equations above, and tau, A and B for a trace.

    Args:
      generator: the parameters of the network.
      paths: the paths of theta in the order of tau.
      theta: the parameters before the step.
      g: their gradients.
      gradient_means: the means of the gradients, ``[n]``.
      alpha: the rates of this step, by path.
      beta: the decays of this step, by path.
    """
    tau = jnp.concatenate([tensor_means(theta, paths), gradient_means])
    A, B = jnp.split(mlp(generator, tau), 2)
    decayed = {path: (1 - B[j] * beta[path]) * theta[path] for j, path in enumerate(paths)}
    rates = {path: A[j] * alpha[path] for j, path in enumerate(paths)}
    return sgd(decayed, g, rates), {"tau": tau, "A": A, "B": B}


def init_generated(
    key: jax.Array, theta: Fast, initial_lr: float, initial_decay: float, num_steps: int
) -> dict[str, Params]:
    """Makes alpha, beta and the generator for adapted parameters ``theta``."""
    dtype, size = dtype_of(theta), 2 * len(theta)

    def everywhere(value):
        return merge({path: jnp.full(num_steps, value, dtype) for path in theta})

    generator = init_mlp(key, size, size, size, dtype)
    return {"inner_lr": everywhere(initial_lr), "decay": everywhere(initial_decay), "generator": generator}
