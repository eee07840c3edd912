"""Losses, gradients and results of many episodes, computed in the way that is fast on each platform.

A learner's functions take one episode. On an accelerator they are vectorised over episodes (``jax.vmap``). On a CPU
that would make slow grouped convolutions, because each episode adapts kernels of its own, and the memory would grow
with every episode. A CPU therefore takes the episodes one after the other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cxgrad_jax import platforms
from cxgrad_jax.arguments import check_learner
from cxgrad_jax.episodes import Episode, as_batch
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._meta_learner import Loss, Metrics
from cxgrad_jax.parallel import varying_like

MeanLoss = Callable[..., tuple[jax.Array, Metrics]]  # (params, episodes, iteration=None) -> (loss, metrics)


def vectorised_tasks(tasks: int, asked: int = 0) -> int:
    """The number of tasks to vectorise at once: ``asked``, or if that is 0, one on a CPU, all on an accelerator."""
    return asked or (1 if platforms.current_platform() == "cpu" else tasks)


def map_tasks(function: Callable[[Any], Any], arguments: Any, at_once: int) -> Any:
    """Applies ``function`` to each task along the leading axis of ``arguments``, ``at_once`` of them vectorised."""
    if at_once == 1:
        return jax.lax.map(function, arguments)
    return jax.lax.map(function, arguments, batch_size=at_once)


def mean_loss_and_gradients(loss: Loss, params: Any, episodes: Episode, at_once: int) -> tuple[tuple[Any, Any], Any]:
    """Mean loss, mean metrics and gradient of the mean over the leading task axis of ``episodes``.

    Groups of ``at_once`` tasks are vectorised, one group after the other, so that only one group's activations are in
    memory. Every choice of ``at_once`` gives the same numbers up to the order of summation.

    Args:
      loss: ``(params, episode) -> (scalar, dict of scalars)``, such as ``MetaLearner.loss``.
      params: the meta-parameters.
      episodes: arrays ``[tasks, ...]``.
      at_once: the number of tasks that are vectorised together, a divisor of ``tasks``.

    Returns:
      ``((loss, metrics), gradients)``.
    """

    def group_loss(params, episodes):
        if at_once == 1:  # no vmap: a batch of one would still become a grouped convolution
            return loss(params, jax.tree.map(lambda x: x[0], episodes))
        losses, metrics = jax.vmap(lambda episode: loss(params, episode))(episodes)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    value_and_grad = jax.value_and_grad(group_loss, has_aux=True)
    tasks = jax.tree.leaves(episodes)[0].shape[0]
    if tasks == at_once:
        return value_and_grad(params, episodes)
    groups = jax.tree.map(lambda x: x.reshape(tasks // at_once, at_once, *x.shape[1:]), episodes)
    results = jax.lax.map(lambda episodes: value_and_grad(params, episodes), groups)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), results)


def mean_loss(learner: MetaLearner, platform: str | None = None) -> MeanLoss:
    """Makes the function ``(params, episodes, iteration=None) -> (loss, metrics)`` of the outer loop.

    It is the mean of ``learner.loss`` over the leading task axis of ``episodes``, in the form that is fast on the
    platform. Use it as ``jax.value_and_grad(cx.mean_loss(learner), has_aux=True)``: the gradient is then computed
    together with the loss, one group of tasks after the other. It can be differentiated once, with respect to
    ``params``.

    Args:
      learner: the learner whose loss is averaged.
      platform: the platform that the program will run on: ``"cpu"``, ``"gpu"`` or ``"tpu"``. None means that of JAX's
        default device.

    Raises:
      UserError: ``learner`` or ``platform`` has the wrong type or value. The function that is returned raises it where
        a metric is differentiated, or where anything is differentiated with respect to ``episodes``.
    """
    check_learner(learner)
    if platform not in (None, "cpu", "gpu", "tpu"):
        raise UserError(f"platform is {platform!r}; expected None, 'cpu', 'gpu' or 'tpu'")

    @jax.custom_vjp
    def value(params, episodes, iteration):
        loss = partial(learner.loss, iteration=iteration)
        at_once = vectorised_tasks(len(episodes.support_labels))
        results = map_tasks(lambda episode: loss(params, episode), episodes, at_once)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), results)

    def forward(params, episodes, iteration):
        if any(leaf.perturbed for leaf in jax.tree.leaves((episodes, iteration))):
            raise UserError(
                "mean_loss is differentiated with respect to episodes; only params can be: use learner.loss"
            )
        params, episodes, iteration = jax.tree.map(lambda leaf: leaf.value, (params, episodes, iteration))
        loss = partial(learner.loss, iteration=iteration)
        return mean_loss_and_gradients(loss, params, episodes, vectorised_tasks(len(episodes.support_labels)))

    def backward(gradients, cotangents):
        loss_cotangent, metrics = cotangents
        if not all(isinstance(leaf, jax.custom_derivatives.SymbolicZero) for leaf in jax.tree.leaves(metrics)):
            raise UserError("a metric of mean_loss is differentiated; only its loss can be: use learner.loss")
        if isinstance(loss_cotangent, jax.custom_derivatives.SymbolicZero):
            return jax.tree.map(jnp.zeros_like, gradients), None, None
        return jax.tree.map(lambda g: loss_cotangent * g, gradients), None, None

    value.defvjp(forward, backward, symbolic_zeros=True)

    def batched(params, episodes, iteration=None):
        episodes = as_batch(episodes)
        params = varying_like(params, jnp.asarray(episodes.support_labels))  # as the gradients are
        with platforms.traced_for(platform):
            return value(params, episodes, iteration)

    return batched
