"""Linear centred kernel alignment of features before and after adaptation (Kornblith et al., ICML 2019).

    CKA(X, Y) = ||X' Y||_F^2 / (||X' X||_F ||Y' Y||_F)          columns of X [n, d1] and Y [n, d2] centred

This is the biased estimator, as in Figure 3 of the CxGrad paper and in BOIL's code. The paper:
https://arxiv.org/abs/1905.00414.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from cxgrad_jax.analysis._features import before_and_after
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._model import Params


def cka(learner: MetaLearner, params: Params, episode: Episode) -> dict[str, jax.Array]:
    """CKA of the query features before and after adaptation, a scalar in [0, 1] for every layer of ``features``.

    Raises:
      UserError: the learner adapts nothing.
    """
    before, after = before_and_after(learner, params, episode)
    return {layer: linear_cka(before[layer], after[layer]) for layer in before}


def linear_cka(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """CKA of two representations ``[n, d1]`` and ``[n, d2]`` of the same n images, a scalar.

    It is computed by the Gram matrices ``[n, n]`` of the centred features, because n is less than d here:
    ``||X' Y||_F^2`` is the inner product of ``X X'`` and ``Y Y'``.

    Raises:
      UserError: the shapes do not fit.
    """
    if jnp.ndim(x) != 2 or jnp.ndim(y) != 2 or jnp.shape(x)[0] != jnp.shape(y)[0]:
        raise UserError(
            f"the representations have shapes {list(jnp.shape(x))} and {list(jnp.shape(y))}; expected [n, d1] and "
            "[n, d2] of the same n images"
        )
    gram_x, gram_y = _gram(x), _gram(y)
    return jnp.vdot(gram_x, gram_y, precision="highest") / (jnp.linalg.norm(gram_x) * jnp.linalg.norm(gram_y))


def _gram(x: ArrayLike) -> jax.Array:
    centred = jnp.asarray(x) - jnp.mean(x, axis=0, keepdims=True)
    return jnp.matmul(centred, centred.T, precision="highest")
