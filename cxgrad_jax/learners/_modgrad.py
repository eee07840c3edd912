"""ModGrad: modulated gradients (Simon et al., "On Modulating the Gradient for Meta-Learning", ECCV 2020).

    g = dL(theta; S)/dtheta                                          once, of the last two convolutions
    theta'(nu) = theta - alpha * g * M(nu)                           always from theta, elementwise
    nu_0 = 0,   nu_{i+1} = -dL(theta'(nu_i); S)/dnu_i                replaced, not accumulated
    meta loss L(theta'(nu_{P-1}); Q)                                 P passes

    M(nu) = relu(u v^T) for a kernel, u and v of S * C_out and S * C_in entries (S: its side), relu(u) for a bias;
    u = sum_m softmax(p)_m U_m, where (p, U) = W2 relu(W1 nu + b1) + b2          a mixture of vectors

Facts from the authors' code (chrysts/generative_preconditioner), 2 passes on Conv-4's third and fourth convolutions;
there neither head nor other layers adapt. The paper's text is not verified. What adapts in ResNet-12 (the last two
convolutions of the last block) is a choice of this package's.
"""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._base import (
    ADAPTED,
    META,
    Labels,
    MetaLearner,
    Task,
    by_path,
    gradient_based,
    merge,
    split_by_label,
)  # fmt: skip
from cxgrad_jax.learners._inner_loop import sgd, support_loss
from cxgrad_jax.learners._mlp import init_mlp, mlp


def last_two_convolutions(path: str, leaf: jax.Array) -> str:
    """``"adapted"`` for the last two convolutions of Conv-4 and ResNet-12, with bias; ``"meta"`` for all else."""
    del leaf
    return ADAPTED if re.match(r"block_[23]/conv/|block_3/conv_[12]/", path) else META


def modgrad(
    model: nn.Module,
    *,
    inner_lr: float = 0.1,
    context_dim: int = 300,
    num_passes: int = 2,
    num_mix: int = 5,
    labels: Labels = last_two_convolutions,
) -> MetaLearner:
    """ModGrad with the mean support cross-entropy, second order.

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: alpha.
      context_dim: size of nu.
      num_passes: P.
      num_mix: vectors of a mixture.
      labels: which parameters adapt: convolution kernels and biases.

    Meta-parameters: ``{"model": ..., "modulator": ...}``, the latter as the adapted part of the model, with an MLP for
    each of ``"u"`` and ``"v"`` (none for a bias). Trace: ``"support_loss" [P + 1]``, at theta and behind each pass,
    ``"context" [P, context_dim]``, nu as used, and ``"fast"`` with an axis of 1.

    Raises:
      UserError: less than one pass, or in ``init`` a parameter adapts that is no kernel and no bias.
    """
    if num_passes < 1:
        raise UserError(f"num_passes is {num_passes}; expected at least 1")

    def adapt(params, support_images, support_labels):
        theta, frozen, _ = split_by_label(params["model"], labels)
        loss_at = support_loss(model, frozen, support_images, support_labels)
        first_loss, gradients = jax.value_and_grad(loss_at)(theta)
        modulators = by_path(params["modulator"], until=theta)

        def modulated(context):
            masks = {path: mask(modulators[path], context, num_mix, value.shape) for path, value in theta.items()}
            return sgd(theta, {path: gradients[path] * masks[path] for path in theta}, inner_lr)

        context = jnp.zeros(context_dim, first_loss.dtype)
        losses, contexts = [first_loss], []
        for _ in range(num_passes):
            contexts.append(context)
            loss, gradient = jax.value_and_grad(lambda nu: loss_at(modulated(nu)))(context)
            losses.append(loss)
            context = -gradient
        fast = jax.tree.map(lambda x: x[None], theta)
        trace = {"support_loss": jnp.stack(losses), "context": jnp.stack(contexts), "fast": fast}
        return Task(merge(modulated(contexts[-1]), frozen), trace)

    def init_modulators(key, model_params, dtype):
        theta, _, _ = split_by_label(model_params, labels)
        modulators = {}
        for path_key, (path, value) in zip(jax.random.split(key, len(theta)), theta.items(), strict=True):
            if value.ndim not in (1, 4):
                raise UserError(f"parameter {path} of shape {value.shape} cannot adapt; modgrad takes convolutions")
            sizes = {"u": value.size} if value.ndim == 1 else dict(zip("uv", vector_sizes(value.shape), strict=True))
            keys = jax.random.split(path_key, len(sizes))
            modulators[path] = {
                name: init_mlp(k, context_dim, size, num_mix + num_mix * size, dtype)
                for k, (name, size) in zip(keys, sizes.items(), strict=True)
            }
        return {"modulator": merge(modulators)}

    return gradient_based(model, adapt, init_modulators)


def vector_sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    """Entries of u and v for a kernel of ``shape [S, S, C_in, C_out]``: S * C_out and S * C_in."""
    side, _, inputs, outputs = shape
    return side * outputs, side * inputs


def mask(modulator: dict, context: jax.Array, num_mix: int, shape: tuple[int, ...]) -> jax.Array:
    """M(nu) of a parameter of ``shape``, not negative. A kernel's u v^T is read row by row as
    ``[C_out, C_in, S, S]``, PyTorch's order."""
    vectors = [mixture(mlp(modulator[name], context), num_mix) for name in sorted(modulator)]
    if len(shape) == 1:
        return jax.nn.relu(vectors[0])
    side, _, inputs, outputs = shape
    return jax.nn.relu(jnp.outer(vectors[0], vectors[1])).reshape(outputs, inputs, side, side).transpose(2, 3, 1, 0)


def mixture(outputs: jax.Array, num_mix: int) -> jax.Array:
    """The vectors ``[num_mix, D]`` behind the first ``num_mix`` of ``outputs``, weighted by the softmax of those."""
    weights, vectors = jax.nn.softmax(outputs[:num_mix]), outputs[num_mix:].reshape(num_mix, -1)
    return jnp.matmul(weights, vectors, precision="highest")
