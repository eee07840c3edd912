"""ModGrad: "On Modulating the Gradient for Meta-Learning" (Simon et al., ECCV 2020).

    g = dL(theta; S)/dtheta                                          once, for the last two convolutions
    theta'(nu) = theta - alpha * g * M(nu)                           always from theta, elementwise
    nu_0 = 0,   nu_{i+1} = -dL(theta'(nu_i); S)/dnu_i                replaced, not accumulated
    meta loss L(theta'(nu_{P-1}); Q)                                 P passes

    M(nu) = relu(u v^T) for a kernel, relu(u) for a bias
    u = sum_m softmax(p)_m U_m, where (p, U) = W2 relu(W1 nu + b1) + b2          a mixture of vectors, and so is v

For a kernel of side s, u has s * C_out entries and v has s * C_in. The paper:
https://doi.org/10.1007/978-3-030-58598-3_33. Its text is not verified.

Facts from the authors' code (https://github.com/chrysts/generative_preconditioner): it makes 2 passes on Conv-4's third
and fourth convolutions, and neither the head nor another layer adapts. In ResNet-12 the last two convolutions of the
last block adapt, which is this package's choice.
"""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import sgd, support_loss
from cxgrad_jax.learners._labels import ADAPTED, META, ParamLabels, by_path, merge, split_by_label
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._mlp import init_mlp, mlp
from cxgrad_jax.learners._model import dtype_of
from cxgrad_jax.learners._modules import module_classes
from cxgrad_jax.learners._spec import described


def last_two_convolutions(path: str, value: jax.Array) -> str:
    """``"adapted"`` for the last two convolutions of Conv-4 or ResNet-12, with bias; ``"meta"`` for everything else."""
    del value
    return ADAPTED if re.match(r"block_[23]/conv/|block_3/conv_[12]/", path) else META


@described
def modgrad(
    model: nn.Module,
    *,
    inner_lr: float = 0.1,
    context_dim: int = 300,
    num_passes: int = 2,
    num_mix: int = 5,
    param_labels: ParamLabels = last_two_convolutions,
    query_statistics: str = "query",
) -> MetaLearner:
    """ModGrad: MAML whose gradients a context masks (https://doi.org/10.1007/978-3-030-58598-3_33).

    The gradients are of second order.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: alpha, the inner learning rate.
      context_dim: the size of the context nu.
      num_passes: P, the number of passes.
      num_mix: the number of vectors in a mixture.
      param_labels: which parameters adapt: convolution kernels and biases.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "modulator": ...}``. The modulator has the structure of the model's adapted part,
    with an MLP for each of ``"u"`` and ``"v"`` (a bias has no ``"v"``). Trace: ``"support_loss" [P + 1]`` at theta and
    after each pass, ``"context" [P, context_dim]``, the nu of each pass, and ``"fast"`` with an axis of 1.

    Raises:
      UserError: in ``init``, a parameter adapts that is neither a kernel nor a bias.
    """

    def adapt(params, support_images, support_labels):
        classes = module_classes(model, support_images)
        theta, frozen, _ = split_by_label(params["model"], param_labels, classes)
        loss_at = support_loss(model, frozen, support_images, support_labels)
        first_loss, gradients = jax.value_and_grad(loss_at)(theta)
        modulators = by_path(params["modulator"], until=theta)

        def modulated(context):
            masks = {path: mask(modulators[path], context, num_mix, value.shape) for path, value in theta.items()}
            return sgd(theta, {path: gradients[path] * masks[path] for path in theta}, inner_lr)

        context = jnp.zeros_like(first_loss, shape=context_dim)
        losses, contexts = [first_loss], []
        for _ in range(num_passes):
            contexts.append(context)
            loss, gradient = jax.value_and_grad(lambda nu: loss_at(modulated(nu)))(context)
            losses.append(loss)
            context = -gradient
        fast = jax.tree.map(lambda x: x[None], theta)
        trace = {"support_loss": jnp.stack(losses), "context": jnp.stack(contexts), "fast": fast}
        return Adapted(merge(modulated(contexts[-1]), frozen), trace)

    def init_modulators(key, model_params, images):
        theta, _, _ = split_by_label(model_params, param_labels, module_classes(model, images))
        modulators = {}
        for path_key, (path, value) in zip(jax.random.split(key, len(theta)), theta.items(), strict=True):
            if value.ndim not in (1, 4):
                raise UserError(f"parameter {path} of shape {value.shape} cannot adapt; modgrad takes convolutions")
            sizes = {"u": value.size} if value.ndim == 1 else dict(zip("uv", vector_sizes(value.shape), strict=True))
            keys = jax.random.split(path_key, len(sizes))
            modulators[path] = {
                name: init_mlp(k, context_dim, size, num_mix + num_mix * size, dtype_of(model_params))
                for k, (name, size) in zip(keys, sizes.items(), strict=True)
            }
        return {"modulator": merge(modulators)}

    return gradient_based(model, adapt, init_modulators, param_labels=param_labels, query_statistics=query_statistics)


def vector_sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    """The sizes of u and v for a kernel of ``shape [s, s, C_in, C_out]``: s * C_out and s * C_in."""
    side, _, inputs, outputs = shape
    return side * outputs, side * inputs


def mask(modulator: dict[str, Any], context: jax.Array, num_mix: int, shape: tuple[int, ...]) -> jax.Array:
    """M(nu) for a parameter of ``shape``. No entry is negative.

    A kernel's u v^T is read row by row as ``[C_out, C_in, S, S]``, PyTorch's order.
    """
    vectors = [mixture(mlp(modulator[name], context), num_mix) for name in sorted(modulator)]
    if len(shape) == 1:
        return jax.nn.relu(vectors[0])
    side, _, inputs, outputs = shape
    return jax.nn.relu(jnp.outer(vectors[0], vectors[1])).reshape(outputs, inputs, side, side).transpose(2, 3, 1, 0)


def mixture(outputs: jax.Array, num_mix: int) -> jax.Array:
    """The sum of ``num_mix`` vectors ``[D]``, weighted by a softmax. ``outputs`` has the weights, then the vectors."""
    weights, vectors = jax.nn.softmax(outputs[:num_mix]), outputs[num_mix:].reshape(num_mix, -1)
    return jnp.matmul(weights, vectors, precision="highest")
