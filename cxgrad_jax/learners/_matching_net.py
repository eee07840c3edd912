"""MatchingNet: matching networks (Vinyals et al., NeurIPS 2016; https://arxiv.org/abs/1606.04080).

    a(x, x_i) = softmax_i( scale * relu(cos(f(x), g(x_i))) )          attention over the support images
    p(y = c | x) = sum of a(x, x_i) over the support images of class c,     loss = -log(p + 1e-6)

By default f and g are the encoder. With full-context embeddings (FCE) both see the support set S [N, D]:

    G = S + forward LSTM(S) + backward LSTM(S)                        g of all support images, in their given order
    h_0 = f(x), c_0 = 0;   N times:   r = softmax(h G^T) G,   (h, c) = LSTM([f(x), r], (h, c)),   h <- h + f(x)

The method's authors have published no code. Facts are from https://github.com/wyharveychen/CloserLookFewShot (Chen et
al., ICLR 2019), which always has scale 100, the ReLU and FCE. The paper's own definition has scale 1 and no ReLU, which
is not verified here. CloserLookFewShot encodes support and query images in one batch (``joint_normalisation``). At
evaluation it normalises by running averages (``query_statistics="running"``).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._checks import nan_where_wrong
from cxgrad_jax.learners._cosine import damped_unit
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import Support, metric_based, one_hot
from cxgrad_jax.learners._mlp import init_linear, linear
from cxgrad_jax.learners._spec import described

PROBABILITY_EPSILON = 1e-6  # added to a class's probability before the logarithm


@described
def matching_net(
    model: nn.Module,
    *,
    scale: float = 100.0,
    full_context: bool = False,
    joint_normalisation: bool = False,
    query_statistics: str = "query",
) -> MetaLearner:
    """MatchingNet: attention over the support images (https://arxiv.org/abs/1606.04080).

    The loss is the mean negative logarithm of the probabilities of the query images' classes.

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      scale: the factor of the cosine.
      full_context: whether full-context embeddings are used. An LSTM of D units then runs N times for a query image.
      joint_normalisation: whether support and query images are encoded in one batch; with ``"running"``, in training
        only, as CloserLookFewShot does.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive; not with ``joint_normalisation``); or
        ``"running"``, the running averages of training, at evaluation (inductive).

    Meta-parameters: ``{"model": ...}`` without a head, and with ``full_context`` the LSTMs ``{"context": {"forward",
    "backward", "query"}}``. ``adapt`` describes the episode by the support features ``[N, D]`` with their
    labels, or with ``joint_normalisation`` by the support images with theirs. Logits are ``log(p + 1e-6)``.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """

    def describe(params, features, labels):
        return Support(support_context(params["context"], features) if full_context else features, labels)

    def compare(params, support, features):
        if full_context:
            features = query_context(params["context"], features, support.inputs)
        cosine = jnp.matmul(damped_unit(features), damped_unit(support.inputs).T, precision="highest")
        attention = jax.nn.softmax(scale * jax.nn.relu(cosine))
        classes = one_hot(support.labels, model.num_classes, attention.dtype)
        return jnp.log(jnp.matmul(attention, classes, precision="highest") + PROBABILITY_EPSILON)

    def objective(logits, labels):
        logits_of_labels = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
        return -jnp.mean(nan_where_wrong(logits_of_labels, labels, model.num_classes))

    def init_context(key, features):
        keys, size, dtype = jax.random.split(key, 3), features.shape[-1], features.dtype
        inputs = {"forward": size, "backward": size, "query": 2 * size}
        return {
            "context": {name: init_lstm(k, inputs[name], size, dtype) for k, name in zip(keys, inputs, strict=True)}
        }

    return metric_based(
        model, "embed", describe, compare,
        objective=objective, init_extra=init_context if full_context else None,
        query_statistics=query_statistics, joint_normalisation=joint_normalisation,
    )  # fmt: skip


def support_context(context: dict[str, Any], features: jax.Array) -> jax.Array:
    """G of the support features, both ``[N, D]``."""

    def run(cell, reverse):
        def step(state, x):
            state = lstm(cell, x, *state)
            return state, state[0]

        start = jnp.zeros_like(features[0])
        return jax.lax.scan(step, (start, start), features, reverse=reverse)[1]

    return features + run(context["forward"], False) + run(context["backward"], True)


def query_context(context: dict[str, Any], features: jax.Array, support: jax.Array) -> jax.Array:
    """The last h of query ``features [M, D]`` that attend to G, ``support [N, D]``: ``[M, D]``."""

    def step(state, _):
        h, c = state
        attention = jax.nn.softmax(jnp.matmul(h, support.T, precision="highest"))
        read = jnp.matmul(attention, support, precision="highest")
        h, c = lstm(context["query"], jnp.concatenate([features, read], axis=-1), h, c)
        return (h + features, c), None

    return jax.lax.scan(step, (features, jnp.zeros_like(features)), length=len(support))[0][0]


def lstm(cell: dict[str, Any], x: jax.Array, h: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of an LSTM, from input ``x [..., D_in]`` and state ``h, c [..., D]`` to the next state ``(h, c)``."""
    gates = linear(cell["input"], x) + linear(cell["hidden"], h)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def init_lstm(key: jax.Array, inputs: int, size: int, dtype: jnp.dtype) -> dict[str, Any]:
    """Makes the parameters of ``lstm`` with ``size`` units, uniform in ±1/sqrt(size) as PyTorch's, with two biases."""
    input_key, hidden_key = jax.random.split(key)
    return {
        "input": init_linear(input_key, inputs, 4 * size, size**-0.5, dtype),
        "hidden": init_linear(hidden_key, size, 4 * size, size**-0.5, dtype),
    }
