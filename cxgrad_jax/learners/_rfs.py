"""RFS: logistic regression on a good embedding (Tian et al., ECCV 2020; "Rethinking few-shot image classification").

    z = f(x) / ||f(x)||
    W, b = argmin  sum over (z_i, y_i) in S of CE(W z_i + b, y_i)  +  lambda/2 ||W||^2            b is not penalised
    logits = W z + b

The encoder f comes from a classifier of the training classes, whose head is dropped. The paper:
https://arxiv.org/abs/2003.11539.

Facts from the authors' code (https://github.com/WangYueFt/rfs), which takes scikit-learn's solver at its defaults:
lambda is 1, and the support set has five augmented copies of every image. Five equal copies would be
``regularisation=0.2`` here. At evaluation running averages normalise. Augmentation, and distillation of the encoder,
are not offered.

The problem is convex and is solved by Newton's method. K are the products of the support features, and P are the
probabilities softmax(K A + b). The solution is W = A^T Z with

    A = (Y - P) / lambda,   sum over the rows of A = 0

This is a system of N * way + way equations, whatever the number of features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._cosine import unit
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import metric_based, one_hot
from cxgrad_jax.learners._mlp import linear
from cxgrad_jax.learners._spec import described
from cxgrad_jax.parallel import varying_like

NEWTON_STEPS = 10  # five suffice for lambda = 1, ten for the least
LEAST_REGULARISATION = 1e-4  # with less, ten steps may not converge, and float32 loses the solution
STEP_LENGTHS = [2.0**-k for k in range(8)]  # each step takes the best of them


@described
def rfs(model: nn.Module, *, regularisation: float = 1.0, query_statistics: str = "query") -> MetaLearner:
    """RFS: logistic regression on fixed features of length 1 (https://arxiv.org/abs/2003.11539).

    Its ``loss``, the mean query cross-entropy, serves to train the encoder in episodes.

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      regularisation: lambda, the inverse of scikit-learn's C, at least 0.0001.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive); or ``"running"``, the running averages of
        training, at evaluation (inductive).

    Meta-parameters: ``{"model": ...}`` without a head. ``adapt`` describes the episode by the regression's
    ``{"kernel": [D, way], "bias": [way]}``. For a class without support images there is no solution. Its bias, which
    nothing penalises, falls with every Newton step, so that it is hardly ever predicted.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """

    if regularisation < LEAST_REGULARISATION:
        raise UserError(
            f"regularisation is {regularisation!r}; expected at least {LEAST_REGULARISATION}, below which the logistic "
            "regression is not solved reliably"
        )

    def describe(params, features, labels):
        targets = one_hot(labels, model.num_classes, features.dtype)
        return logistic_regression(unit(features), targets, regularisation)

    def compare(params, regression, features):
        return linear(regression, unit(features))

    return metric_based(model, "embed", describe, compare, query_statistics=query_statistics)


def logistic_regression(features: jax.Array, targets: jax.Array, regularisation: float) -> dict[str, jax.Array]:
    """The multinomial logistic regression that the equations above define.

    Args:
      features: Z, ``[N, D]``.
      targets: Y, one-hot ``[N, way]``.
      regularisation: lambda, at least 0.0001.

    Returns:
      ``{"kernel": W^T [D, way], "bias": b [way]}``. The biases sum to 0. First derivatives are those of the exact
      solution. By the implicit function theorem these are the derivatives of one Newton step from the solution.
    """
    products = jnp.matmul(features, features.T, precision="highest")
    targets = varying_like(targets, features)
    constants = jax.lax.stop_gradient((products, targets))
    start = jnp.zeros_like(targets), jnp.zeros_like(targets[0])

    def iterate(solution, _):
        step = newton_step(solution, *constants, regularisation)
        tried = jax.vmap(lambda length: jax.tree.map(lambda x, dx: x + length * dx, solution, step))(
            jnp.asarray(STEP_LENGTHS, features.dtype)
        )
        losses = jax.vmap(lambda each: objective(each, *constants, regularisation))(tried)
        return jax.tree.map(lambda x: x[jnp.argmin(losses)], tried), None

    solution = jax.lax.stop_gradient(jax.lax.scan(iterate, start, length=NEWTON_STEPS)[0])
    duals, bias = jax.tree.map(jnp.add, solution, newton_step(solution, products, targets, regularisation))
    return {"kernel": jnp.matmul(features.T, duals, precision="highest"), "bias": bias}


Solution = tuple[jax.Array, jax.Array]  # A [N, way] and b [way]


def objective(solution: Solution, products: jax.Array, targets: jax.Array, regularisation: float) -> jax.Array:
    """The function that is minimised, in terms of K ``[N, N]``, Y ``[N, way]`` and lambda."""
    duals, bias = solution
    fit = jnp.matmul(products, duals, precision="highest")
    return regularisation / 2 * jnp.sum(duals * fit) - jnp.sum(targets * jax.nn.log_softmax(fit + bias[None]))


def newton_step(solution: Solution, products: jax.Array, targets: jax.Array, regularisation: float) -> Solution:
    """The step from A and b to the solution of the equations that are linearised there. Their matrix is a constant.

    A softmax does not depend on the sum of b, so the sum is free. A further term makes it 0.
    """
    duals, bias = solution
    probabilities = jax.nn.softmax(jnp.matmul(products, duals, precision="highest") + bias[None])
    residual = duals - (targets - probabilities) / regularisation, jnp.sum(duals, axis=0) + jnp.sum(bias)

    (number, way), identity = targets.shape, jnp.eye(targets.shape[1], dtype=probabilities.dtype)
    slopes = identity[None] * probabilities[:, :, None] - probabilities[:, :, None] * probabilities[:, None]
    slopes /= regularisation
    dual_slopes = jnp.einsum("icd,ij->icjd", slopes, products).reshape(number * way, number * way)
    matrix = jnp.block(
        [
            [jnp.eye(number * way, dtype=probabilities.dtype) + dual_slopes, slopes.reshape(number * way, way)],
            [jnp.tile(identity, number), jnp.ones_like(identity)],
        ]
    )
    step = jnp.linalg.solve(jax.lax.stop_gradient(matrix), -jnp.concatenate([residual[0].ravel(), residual[1]]))
    return step[: number * way].reshape(number, way), step[number * way :]
