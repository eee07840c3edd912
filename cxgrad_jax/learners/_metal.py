"""MeTAL: meta-learning with a task-adaptive loss function (Baik et al., ICCV 2021; https://arxiv.org/abs/2110.03909).

    z = f([S, T]; theta_k)                                    one pass over the support and the query images
    L_S = CE(z_S, y_S),   m = (mean of each adapted tensor)
    u_S = std1( rows i of S:  L_S, m, z_i, onehot(y_i) )      loss_S = mean of g_k(u_S;  phi_k adapted by (L_S, m))
    u_T = std1( rows i of T:  m, z_i, sum_c p_ic log p_ic )   loss_T = mean of g'_k(u_T; phi'_k adapted by mean_i u_T)
    theta_{k+1} = theta_k - alpha * d(L_S + loss_S + loss_T)/dtheta_k
    outer loss: CE of f([S, T]; theta_K) on the labels of S and T together

g_k and g'_k are small networks, one for each step. Each of their four tensors w is adapted as
(1 + beta a) w + gamma a', where a and a' come from a further network of the given input. The learned beta and gamma
start at zero. std1 subtracts the mean of the whole matrix and divides by its standard deviation.

Facts from the authors' code (https://github.com/baiksung/MeTAL): no gradient is held constant, and alpha is 0.01. The
query images, without their labels, are always part of the inner loop, so that all results are transductive. The paper's
inductive form has no loss_T. It is ``query_statistics="support"`` here, and the authors' code does not cover it.

With ``alfa``, rates and decays of the steps come from ALFA's generator (see ``_alfa``). In that case the means of
gradients are not constants for the outer loop, unlike in ALFA's own code.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.learners._alfa import generated_step, init_generated
from cxgrad_jax.learners._checked import checked
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import constant_if, scan_steps, sgd, traced_norms
from cxgrad_jax.learners._l2f import tensor_means
from cxgrad_jax.learners._labels import ParamLabels, by_path, default_labels, merge, split_by_label
from cxgrad_jax.learners._losses import cross_entropy, query_metrics
from cxgrad_jax.learners._meta_learner import Adapted, Init, MetaLearner
from cxgrad_jax.learners._metric import Described, Support, joined
from cxgrad_jax.learners._mlp import init_mlp, mlp
from cxgrad_jax.learners._model import Params, apply_model, dtype_of
from cxgrad_jax.learners._modules import module_classes, num_outputs
from cxgrad_jax.learners._spec import described

DEVIATION_EPSILON = 1e-12  # added to the standard deviation in std1
LOSS_TENSORS = ("hidden", "kernel"), ("hidden", "bias"), ("output", "kernel"), ("output", "bias")


@described
def metal(
    model: nn.Module,
    *,
    inner_lr: float = 0.01,
    num_steps: int = 5,
    alfa: bool = False,
    initial_decay: float = 5e-6,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = default_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """MeTAL: MAML whose inner loss is learned, alone or with ALFA (https://arxiv.org/abs/2110.03909).

    Args:
      model: a ``flax.linen`` classifier, float images ``[N, H, W, C]`` to logits ``[N, way]``.
      inner_lr: alpha, the inner learning rate. With ``alfa`` it is the initial value of the learned alpha.
      num_steps: the number of inner steps, in training and test.
      alfa: whether ALFA generates rates and decays.
      initial_decay: the initial value of ALFA's beta.
      first_order: whether the outer loop treats inner gradients as constants.
      remat: whether the outer backward pass computes the inner steps again, to save memory.
      param_labels: which parameters adapt.
      query_statistics: ``"query"`` follows the equations of ``cxgrad_jax/learners/_metal.py``. Support and query images
        are normalised together, and the inner loop, which ``predict`` runs, sees all query images (transductive). With
        ``"support"`` the inner loop has only the support images and loss_S. The statistics of the support set at the
        adapted parameters normalise the query images, and the outer loss is that of the query set (inductive).

    Meta-parameters: ``{"model": ..., "losses": {"support", "query"}, "adapters": {"support", "query"}}``. The last two
    have a leading axis of steps, and ``"query"`` only if it is used. With ``alfa`` the meta-parameters of ``alfa`` are
    there too. Trace: ``"support_loss"``, ``"learned_support_loss"``, ``"learned_query_loss"`` and their sum
    ``"inner_loss"``, each ``[num_steps]``, and with ``alfa`` its own. With ``query_statistics="query"``, ``adapt``
    returns the support set, because everything else needs the query images.

    Raises:
      UserError: a hyper-parameter has a value that the learner cannot use, such as ``query_statistics="running"``, or
        later, no parameter adapts.
    """

    def inner_loop(params, support_images, support_labels, query_images=None):
        theta, frozen, _ = split_by_label(params["model"], param_labels, module_classes(model, support_images))
        paths = list(theta)  # in forward order; after a scan JAX has sorted the dict's keys
        images = support_images if query_images is None else joined(params, support_images, query_images)

        def step(theta, step_params):
            def inner_loss(theta):
                logits = apply_model(model, merge(theta, frozen), images)
                losses = inner_losses(step_params, tensor_means(theta, paths), logits, support_labels)
                return losses["inner_loss"], losses

            (_, losses), g = jax.value_and_grad(inner_loss, has_aux=True)(theta)
            g = constant_if(first_order, g)
            trace = {**losses, "fast": theta, **traced_norms(g)}
            if not alfa:
                return sgd(theta, g, inner_lr), trace
            rates = step_params["inner_lr"], step_params["decay"]
            gradient_means = tensor_means(g, paths)
            updated, generated = generated_step(params["generator"], paths, theta, g, gradient_means, *rates)
            return updated, {**trace, **generated}

        per_step = {name: params[name] for name in ("losses", "adapters")}
        if alfa:
            per_step |= {name: by_path(params[name]) for name in ("inner_lr", "decay")}
        theta, trace = scan_steps(step, theta, num_steps, remat, per_step=per_step)
        return Adapted(merge(theta, frozen), trace)

    def init_extra(key, model_params, images):
        theta, _, _ = split_by_label(model_params, param_labels, module_classes(model, images))
        support_key, query_key, alfa_key = jax.random.split(key, 3)
        state, way, dtype = len(theta) + 1, num_outputs(model, images), dtype_of(model_params)
        sizes = {"support": (support_key, state + 2 * way, state)}
        if query_statistics == "query":
            sizes["query"] = (query_key, state + way, state + way)
        made = {kind: init_loss(*each, num_steps, dtype) for kind, each in sizes.items()}
        rates = init_generated(alfa_key, theta, inner_lr, initial_decay, num_steps) if alfa else {}
        return {part: {kind: made[kind][part] for kind in made} for part in ("losses", "adapters")} | rates

    inductive = gradient_based(
        model, inner_loop, init_extra, param_labels=param_labels, query_statistics=query_statistics
    )
    if query_statistics == "query":
        return transductive(model, inner_loop, inductive.init, param_labels)
    return inductive


def transductive(
    model: nn.Module, inner_loop: Callable[..., Adapted], init: Init, param_labels: ParamLabels
) -> MetaLearner:
    """Makes the learner whose inner loop sees the query images, so that ``predict`` runs it.

    Args:
      model: a ``flax.linen`` classifier.
      inner_loop: ``(params, support_images, support_labels, query_images) -> Adapted``.
      init: a ``MetaLearner.init``.
      param_labels: which parameters adapt, for ``describe``.
    """

    def refuse_others(params, images):
        """Raises the model's own error for images that it cannot take, before they are joined with others."""
        jax.eval_shape(lambda params, images: apply_model(model, params, images), params["model"], images)

    def adapt(params, support_images, support_labels):
        refuse_others(params, support_images)
        return Described(Support(support_images, support_labels))

    def all_logits(params, support, query_images):
        """The logits of the adapted model, those of the support set first, and the trace of the inner loop."""
        adapted = inner_loop(params, support.inputs, support.labels, query_images)
        return apply_model(model, adapted.model, joined(params, support.inputs, query_images)), adapted.trace

    def predict(params, adapted, query_images):
        refuse_others(params, query_images)
        return all_logits(params, adapted.episode, query_images)[0][len(adapted.episode.labels) :]

    def loss(params, episode, iteration=None):
        del iteration
        support = Support(episode.support_images, episode.support_labels)
        logits, trace = all_logits(params, support, episode.query_images)
        labels = jnp.concatenate([episode.support_labels, episode.query_labels])
        query_logits = logits[len(support.labels) :]
        return cross_entropy(logits, labels), query_metrics(query_logits, episode.query_labels, trace)

    return checked(model, init, adapt, predict, loss, param_labels)


def inner_losses(step_params: Params, means: jax.Array, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """L_S, loss_S, with query images loss_T, and their sum, each a scalar.

    Args:
      step_params: ``"losses"`` and ``"adapters"`` of this step.
      means: m, ``[n]``.
      logits: those of the support images, then those of the query images: ``[N, way]`` or ``[N + M, way]``.
      labels: the support images', ``[N]``.
    """
    support_logits, query_logits = logits[: len(labels)], logits[len(labels) :]
    support_loss = cross_entropy(support_logits, labels)
    learned = learned_support_loss(step_params, support_loss, means, support_logits, labels)
    losses, total = {"support_loss": support_loss, "learned_support_loss": learned}, support_loss + learned
    if len(query_logits):
        losses["learned_query_loss"] = learned_query_loss(step_params, means, query_logits)
        total += losses["learned_query_loss"]
    return {**losses, "inner_loss": total}


def learned_support_loss(
    step_params: Params, support_loss: jax.Array, means: jax.Array, logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """loss_S of the equations above, a scalar.

    Args:
      step_params: ``"losses"`` and ``"adapters"`` of this step.
      support_loss: L_S.
      means: m, ``[n]``.
      logits: the logits of the support images, ``[N, way]``.
      labels: ``[N]``.
    """
    state = jnp.concatenate([support_loss[None], means])
    classes = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    rows = jnp.concatenate([jnp.broadcast_to(state, (len(logits), len(state))), logits, classes], axis=1)
    network = adapted_network(step_params["losses"]["support"], step_params["adapters"]["support"], standardised(state))
    return jnp.mean(mlp(network, standardised(rows)))


def learned_query_loss(step_params: Params, means: jax.Array, logits: jax.Array) -> jax.Array:
    """loss_T of the equations above, a scalar, from m ``[n]`` and the query images' logits ``[M, way]``."""
    log_probabilities = jax.nn.log_softmax(logits)
    certainty = jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=1, keepdims=True)
    rows = jnp.concatenate([jnp.broadcast_to(means, (len(logits), len(means))), logits, certainty], axis=1)
    inputs = standardised(rows)
    state = jnp.mean(inputs, axis=0)
    network = adapted_network(step_params["losses"]["query"], step_params["adapters"]["query"], state)
    return jnp.mean(mlp(network, inputs))


def standardised(values: jax.Array) -> jax.Array:
    """std1: gives ``values`` mean 0 and standard deviation 1 over all entries. The variance divides by n - 1."""
    return (values - jnp.mean(values)) / (jnp.std(values, ddof=1) + DEVIATION_EPSILON)


def adapted_network(network: Params, adapter: Params, state: jax.Array) -> Params:
    """Scales and shifts phi, tensor by tensor, by what the adapter makes of a state ``[d]``."""
    scales, shifts = jnp.split(mlp(adapter["network"], state), 2)
    return merge(
        {
            f"{layer}/{name}": (1 + adapter["multiplier"][i] * scales[i]) * network[layer][name]
            + adapter["offset"][i] * shifts[i]
            for i, (layer, name) in enumerate(LOSS_TENSORS)
        }
    )


def init_loss(key: jax.Array, inputs: int, state: int, num_steps: int, dtype: jnp.dtype) -> dict[str, Params]:
    """Loss networks of ``inputs`` and their adapters of ``state`` numbers, with a leading axis of steps.

    The networks' kernels are Glorot uniform and their biases zero. The adapters have PyTorch's default and no effect.
    """
    glorot = jax.nn.initializers.xavier_uniform()

    def init_step(key):
        hidden_key, output_key, adapter_key = jax.random.split(key, 3)
        network = {
            "hidden": {"kernel": glorot(hidden_key, (inputs, inputs), dtype), "bias": jnp.zeros(inputs, dtype)},
            "output": {"kernel": glorot(output_key, (inputs, 1), dtype), "bias": jnp.zeros(1, dtype)},
        }
        nothing = jnp.zeros(len(LOSS_TENSORS), dtype)
        generator = init_mlp(adapter_key, state, state, 2 * len(LOSS_TENSORS), dtype)
        return {"losses": network, "adapters": {"network": generator, "multiplier": nothing, "offset": nothing}}

    return jax.vmap(init_step)(jax.random.split(key, num_steps))
