"""CAVIA: fast context adaptation via meta-learning (Zintgraf et al., ICML 2019; https://arxiv.org/abs/1810.03642).

    nu_0 = 0,   nu_{k+1} = nu_k - alpha * dL(theta, nu_k; S)/dnu_k,   meta loss L(theta, nu_K; Q)
    (gamma, beta) = W nu + b,   h <- gamma * h + beta               FiLM of the third block, before its activation

Only the context nu adapts. Facts from the authors' code (https://github.com/lmzintgraf/cavia): it takes two steps with
alpha 1. gamma has no "+ 1", so at nu = 0 it is b, which is drawn from ±0.1. The Kaiming-uniform initialisation of its
convolutions is not offered here. In ResNet-12, FiLM stands after the pooling of the third block, as in Conv-4. That is
this package's choice.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.arguments import is_whole
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checked import checked
from cxgrad_jax.learners._checks import refuse_running
from cxgrad_jax.learners._inner_loop import constant_if, scan_steps, sgd
from cxgrad_jax.learners._losses import cross_entropy, query_loss
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._mlp import linear
from cxgrad_jax.learners._model import Statistics, apply_model, as_float, batch_statistics, init_model
from cxgrad_jax.learners._spec import described


class Context(NamedTuple):
    """What ``adapt`` returns.

    Attributes:
      context: nu ``[context_dim]`` after the inner loop.
      trace: ``"support_loss" [num_steps]`` and ``"context" [num_steps, context_dim]``, before each update.
      statistics: those of ``Adapted``.
    """

    context: jax.Array
    trace: dict[str, jax.Array]
    statistics: Statistics = {}  # never changed in place


@described
def cavia(
    model: nn.Module,
    *,
    inner_lr: float = 1.0,
    context_dim: int = 100,
    num_steps: int = 2,
    first_order: bool = False,
    query_statistics: str = "query",
) -> MetaLearner:
    """CAVIA: only a context adapts, which scales and shifts features (https://arxiv.org/abs/1810.03642).

    Args:
      model: a backbone whose call takes ``film=(gamma, beta)``, both ``[film_features]``, as Conv-4 and ResNet-12 do.
        ``film_features``, the number of channels, is a field or a property of it.
      inner_lr: alpha, the inner learning rate.
      context_dim: the size of the context.
      num_steps: the number of inner steps.
      first_order: whether the outer loop treats inner gradients as constants.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "film": {"kernel": W, "bias": b}}``.

    Raises:
      UserError: the model has no number ``film_features``, or ``query_statistics`` is ``"running"``.
    """
    refuse_running(query_statistics)
    if not is_whole(getattr(model, "film_features", None)):
        raise UserError(
            f"{type(model).__name__} has no film_features that is a number; cavia needs this field or property, and a "
            "call that takes film="
        )

    def init(key, images):
        images, (model_key, film_key) = as_float(images), jax.random.split(key)
        kernel_key, bias_key = jax.random.split(film_key)
        shape, dtype = (context_dim, 2 * model.film_features), images.dtype
        film = {
            "kernel": jax.random.uniform(kernel_key, shape, dtype, -1, 1) * (3 / context_dim) ** 0.5,
            "bias": jax.random.uniform(bias_key, shape[1:], dtype, -1, 1) * context_dim**-0.5,
        }
        return {"model": init_model(model, model_key, images)[1], "film": film}

    def film_of(params, context):
        return tuple(jnp.split(linear(params["film"], context), 2))

    def adapt(params, support_images, support_labels):
        def support_loss(context):
            logits = apply_model(model, params["model"], support_images, film=film_of(params, context))
            return cross_entropy(logits, support_labels)

        def step(context, _):
            loss, gradient = jax.value_and_grad(support_loss)(context)
            updated = sgd(context, constant_if(first_order, gradient), inner_lr)
            return updated, {"support_loss": loss, "context": context}

        start = jnp.zeros_like(params["film"]["kernel"][:, 0])
        context, trace = scan_steps(step, start, num_steps, remat=False)
        if query_statistics == "query":
            return Context(context, trace)
        film = film_of(params, context)
        return Context(context, trace, batch_statistics(model, params["model"], support_images, film=film))

    def predict(params, adapted, query_images):
        film = film_of(params, adapted.context)
        return apply_model(model, params["model"], query_images, statistics=adapted.statistics, film=film)

    return checked(model, init, adapt, predict, query_loss(adapt, predict))
