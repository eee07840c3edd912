"""MAML++: how to train your MAML (Antoniou, Edwards and Storkey, ICLR 2019; https://arxiv.org/abs/1810.09502).

    theta_{l,k+1} = theta_{l,k} - a_{l,k} * dL(theta_k; S)/dtheta_{l,k}      a learned rate for each tensor l and step k
    meta loss = sum_k v_k L(theta_{k+1}; Q)                                  multi-step loss, where v is the epoch's

Normalisations have a scale and a shift of their own for every step: row k serves the support pass of step k and the
query pass after it. With K steps, the weights of epochs e < E move from equal ones to the last step alone:

    v_k = max(1/K - e/(K E), 0.03/K) for k < K - 1,     v_{K-1} = min(1/K + e (K-1)/(K E), 1 - 0.03 (K-1)/K)

From epoch E on, and in a test, the loss is that of the last step.

Facts from the authors' code (https://github.com/AntreasAntoniou/HowToTrainYourMAMLPytorch): it stores running
statistics for each step but never uses them, so they are not offered here. Its rates now start at 0.1. Before May 2019
they started at 0.01, which is nearer to the published numbers. At that time it also had first-order gradients in epochs
0 to 10.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import first_order_at, scan_steps, sgd, support_gradients, traced_norms
from cxgrad_jax.learners._labels import ParamLabels, by_path, default_labels, merge, split_by_label
from cxgrad_jax.learners._losses import cross_entropy, query_metrics
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._model import apply_model, batch_statistics, dtype_of
from cxgrad_jax.learners._modules import module_classes
from cxgrad_jax.learners._spec import described


@described
def maml_plus_plus(
    model: nn.Module,
    *,
    initial_lr: float = 0.01,
    num_steps: int = 5,
    multi_step_epochs: int = 15,
    first_order_epochs: int = 0,
    epoch_iterations: int = 500,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """MAML++: MAML with learned rates, multi-step loss and rows of normalisation (https://arxiv.org/abs/1810.09502).

    It does what the official code does (https://github.com/AntreasAntoniou/HowToTrainYourMAMLPytorch).

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      initial_lr: the initial value of the rates a.
      num_steps: K, the number of inner steps.
      multi_step_epochs: E, the number of epochs with a multi-step loss.
      first_order_epochs: the number of epochs at the start of training in which the outer loop treats inner gradients
        as constants.
      epoch_iterations: the number of outer iterations in an epoch.
      first_order: whether the outer loop always treats inner gradients as constants.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters adapt. Those labelled ``"meta"`` (normalisation) get a row for every step.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ..., "inner_lr": ...}``. Parameters of the model that do not adapt have a leading axis
    ``[num_steps]``. The rates, each ``[num_steps]``, have the structure of the model's adapted part. Trace:
    ``"support_loss" [num_steps]``.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no parameter adapts.
    """

    def inner_loop(params, support_images, support_labels, first_order):
        """The model after each step, with the row of its step, as leaves ``[num_steps, ...]``, and the trace."""
        theta, rows, _ = split_by_label(params["model"], param_labels, module_classes(model, support_images))
        rates = by_path(params["inner_lr"])

        def step(theta, step_params):
            rates, rows = step_params
            support_loss, gradients = support_gradients(model, rows, support_images, support_labels, first_order)(theta)
            trace = {"support_loss": support_loss, "fast": theta, **traced_norms(gradients)}
            theta = sgd(theta, gradients, rates)
            return theta, (merge(theta, rows), trace)

        return scan_steps(step, theta, num_steps, remat, per_step=(rates, rows))[1]

    def adapt(params, support_images, support_labels):
        models, trace = inner_loop(params, support_images, support_labels, first_order)
        return Adapted(jax.tree.map(lambda x: x[-1], models), trace)

    def loss(params, episode, iteration=None):
        now = first_order_at(first_order, first_order_epochs * epoch_iterations, iteration)
        models, trace = inner_loop(params, episode.support_images, episode.support_labels, now)

        def logits_of(model_params):
            own = query_statistics == "query"
            statistics = None if own else batch_statistics(model, model_params, episode.support_images)
            return apply_model(model, model_params, episode.query_images, statistics=statistics)

        logits = logits_of(jax.tree.map(lambda x: x[-1], models))
        last = cross_entropy(logits, episode.query_labels)
        metrics = query_metrics(logits, episode.query_labels, trace)
        if iteration is None or num_steps == 1 or multi_step_epochs == 0:
            return last, metrics

        @jax.checkpoint  # otherwise the activations of these passes would be kept even if the passes are left out
        def weighted(model_params, weight):
            return weight * cross_entropy(logits_of(model_params), episode.query_labels)

        def multi_step(models, last):
            weights = step_weights(iteration // epoch_iterations, num_steps, multi_step_epochs).astype(last.dtype)
            losses = jax.lax.map(lambda pair: weighted(*pair), (models, weights[:-1]))
            return jnp.sum(losses) + weights[-1] * last

        earlier = jax.tree.map(lambda x: x[:-1], models)
        in_time = iteration < multi_step_epochs * epoch_iterations
        return jax.lax.cond(in_time, multi_step, lambda models, last: last, earlier, last), metrics

    def init_extra(key, model_params, images):
        theta, rows, _ = split_by_label(model_params, param_labels, module_classes(model, images))
        rates = {path: jnp.full(num_steps, initial_lr, dtype_of(model_params)) for path in theta}
        rows = {path: jnp.broadcast_to(value, (num_steps, *value.shape)) for path, value in rows.items()}
        return {"model": merge(theta, rows), "inner_lr": merge(rates)}

    return gradient_based(model, adapt, init_extra, loss, param_labels, query_statistics)


def step_weights(epoch: jax.Array | int, num_steps: int, epochs: int) -> jax.Array:
    """v of the multi-step loss in ``epoch`` < ``epochs``: ``[num_steps]``, with the sum 1."""
    equal, moved = 1 / num_steps, epoch / (num_steps * epochs)
    earlier = jnp.maximum(equal - moved, 0.03 * equal)
    last = jnp.minimum(equal + (num_steps - 1) * moved, 1 - 0.03 * (num_steps - 1) * equal)
    return jnp.full(num_steps, earlier).at[-1].set(last)
