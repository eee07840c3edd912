"""Baseline++: a new cosine head, fine-tuned on features that stay (Chen et al., ICLR 2019; "A closer look at few-shot
classification").

    logits_c = 2 g_c cos(v_c, f(x))
    (v, g) <- 100 epochs of SGD on the mean cross-entropy of batches of 4 support images, features f(x_i) constant

The encoder f comes from a classifier of the training classes with the same kind of head, which is dropped. Baseline is
the same with a linear head. The paper: https://arxiv.org/abs/1904.04232.

Facts from the authors' code (https://github.com/wyharveychen/CloserLookFewShot): the length g_c of each class's weights
is learned, so that the logits are not pure cosines. 1e-5 is added to a feature's length. SGD has the rate 0.01,
momentum 0.9, dampening 0.9 from its second step on, and weight decay 1e-3 on g and v. Each epoch draws a new order, and
its last batch is smaller. At evaluation running averages normalise. The code draws a new head and new orders for every
episode. Here all episodes share one draw, so that a learner remains a pure function of the episode.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cxgrad_jax.keys import fixed_draws
from cxgrad_jax.learners._checks import nan_where_wrong
from cxgrad_jax.learners._cosine import damped_unit
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._metric import metric_based
from cxgrad_jax.learners._mlp import init_linear, linear
from cxgrad_jax.learners._spec import described
from cxgrad_jax.parallel import varying_like

Head = dict[str, jax.Array]

MOMENTUM, DAMPENING, WEIGHT_DECAY = 0.9, 0.9, 1e-3


@described
def baseline_plus_plus(
    model: nn.Module,
    *,
    classifier: str = "cosine",
    scale: float = 2.0,
    inner_lr: float = 0.01,
    num_epochs: int = 100,
    batch_size: int = 4,
    query_statistics: str = "query",
) -> MetaLearner:
    """Baseline++: a new cosine head, fine-tuned on fixed features (https://arxiv.org/abs/1904.04232).

    Its ``loss``, the mean query cross-entropy, serves to train the encoder in episodes.

    Args:
      model: an encoder, ``embed(images [N, H, W, C]) -> [N, D]``, with ``num_classes``.
      classifier: the new head, ``"cosine"`` or ``"linear"`` (Baseline).
      scale: the factor of the cosine.
      inner_lr: the rate of the fine-tuning.
      num_epochs: the number of passes over the support set.
      batch_size: the number of support images in a step.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive); ``"support"``, those of the support set (inductive); or ``"running"``, the running averages of
        training, at evaluation (inductive).

    Meta-parameters: ``{"model": ...}`` without a head. ``adapt`` describes the episode by the fine-tuned head: kernel v
    ``[D, way]`` and length g ``[way]``, or kernel and bias. A class without support images is still an answer.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, or the model has no ``embed`` or no
        ``num_classes``.
    """
    logits_of = cosine_logits(scale) if classifier == "cosine" else linear

    def describe(params, features, labels):
        with fixed_draws():
            head_key, order_key = jax.random.split(jax.random.key(0, impl="threefry2x32"))
            head = init_head(head_key, classifier, features.shape[1], model.num_classes, features.dtype)
            keys = jax.random.split(order_key, num_epochs)
            orders = jax.vmap(lambda key: jax.random.permutation(key, len(labels)))(keys)
        return fine_tune(logits_of, varying_like(head, features), features, labels, orders, batch_size, inner_lr)[0]

    def compare(params, head, features):
        return logits_of(head, features)

    return metric_based(model, "embed", describe, compare, query_statistics=query_statistics)


def cosine_logits(scale: float) -> Callable[[Head, jax.Array], jax.Array]:
    """Makes the function ``(head, features [N, D]) -> logits [N, way]`` of the equation above."""

    def logits_of(head, features):
        weights = head["kernel"] * (head["length"] / jnp.linalg.norm(head["kernel"], axis=0))[None]
        return scale * jnp.matmul(damped_unit(features), weights, precision="highest")

    return logits_of


def init_head(key: jax.Array, classifier: str, features: int, way: int, dtype: jnp.dtype) -> Head:
    """Makes a new head. Kernel and bias are uniform in ±1/sqrt(features), PyTorch's default.

    The lengths of a cosine head are those of the kernel's columns.
    """
    head = init_linear(key, features, way, features**-0.5, dtype)
    if classifier == "linear":
        return head
    return {"kernel": head["kernel"], "length": jnp.linalg.norm(head["kernel"], axis=0)}


def fine_tune(
    logits_of: Callable[[Head, jax.Array], jax.Array],
    head: Head,
    features: jax.Array,
    labels: jax.Array,
    orders: jax.Array,
    batch_size: int,
    lr: float,
) -> tuple[Head, jax.Array]:
    """SGD on the mean cross-entropy of batches.

    Args:
      logits_of: ``(head, features [N, D]) -> logits [N, way]``.
      head: the head to start from.
      features: ``[N, D]``.
      labels: ``[N]``.
      orders: the order of the images in each epoch, ``[epochs, N]``.
      batch_size: the number of images in a step. The last batch of an epoch takes the remainder.
      lr: the learning rate.

    Returns:
      The head, and the loss before each step, ``[epochs * ceil(N / batch_size)]``.
    """
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    missing = -len(labels) % batch_size
    batches = jnp.pad(orders, ((0, 0), (0, missing)), constant_values=-1).reshape(-1, batch_size)

    def loss_of(head, batch):
        logits, classes = logits_of(head, features[batch]), labels[batch]
        each = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
        each = nan_where_wrong(each, classes, logits.shape[-1])
        return jnp.mean(each, where=batch >= 0)

    def step(state, batch):
        head, velocity, dampening = state
        loss, gradient = jax.value_and_grad(loss_of)(head, batch)
        gradient = jax.tree.map(lambda g, p: g + WEIGHT_DECAY * p, gradient, head)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + (1 - dampening) * g, velocity, gradient)
        head = jax.tree.map(lambda p, v: p - lr * v, head, velocity)
        return (head, velocity, jnp.full_like(dampening, DAMPENING)), loss

    start = head, jax.tree.map(jnp.zeros_like, head), jnp.zeros_like(features, shape=())
    (head, _, _), losses = jax.lax.scan(step, start, batches)
    return head, losses
