"""Running averages of batch normalisations: kept with the meta-parameters, moved by the outer loop.

They are ``params["statistics"]``, by network: ``{"model": averages}``. Each is flax's collection "batch_stats".

    logits, moved = apply_in_training(model, params["model"], images, statistics=averages)    normalised by the batch
    logits = apply_model(model, params["model"], images, statistics=averages)                 normalised by the averages

``apply_in_training`` moves the averages as the modules say. This package's ``Norm`` follows PyTorch's rule, which the
public codes use (momentum 0.1, unbiased variance). flax's ``BatchNorm`` follows its own momentum.

A loss returns ``(loss, metrics)`` and no parameters. It therefore hands the new averages to the outer loop by its
gradient: ``averaging_term(old, new)`` is zero, and its gradient with respect to ``old`` is ``old - new``. The mean of
the gradients over tasks and devices then belongs to the mean of the tasks' averages, and a plain step of size 1 moves
there. The optimiser must leave the averages alone. ``with_running_averages`` does that in ``cx.fit`` and in a training
run. A loop of your own wraps its optimiser: ``optimiser = cx.learners.with_running_averages(optax.adam(1e-3))``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core import unfreeze

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._model import Params, Statistics, batch_statistics

STATISTICS = "statistics"  # the key of the running averages in meta-parameters


def initial_statistics(model: nn.Module, model_params: Params, images: Any, method: str = "__call__") -> Statistics:
    """The running averages before training: means of 0 and variances of 1, shaped as ``batch_statistics``.

    They are empty for a model without batch normalisation. The arguments are those of ``apply_model``; the values of
    ``images`` do not matter.
    """
    shapes = _shapes(model, model_params, images, method)

    def start(path, shape):
        return jnp.full(shape.shape, 1.0 if path[-1].key == "var" else 0.0, shape.dtype)

    return jax.tree_util.tree_map_with_path(start, shapes)


def with_initial(params: dict[str, Params], averages: dict[str, Statistics]) -> dict[str, Params]:
    """Adds to ``params`` the ``"statistics"`` of those networks that have batch normalisations, if any has."""
    averages = {name: statistics for name, statistics in averages.items() if statistics}
    return {**params, STATISTICS: averages} if averages else params


def running_statistics(
    model: nn.Module, params: Params, images: Any, method: str = "__call__"
) -> dict[str, Statistics]:
    """Returns ``params["statistics"]``, which is empty for a model without batch normalisation.

    Args:
      model: the model whose parameters are ``params["model"]``.
      params: the meta-parameters.
      images: ``[N, H, W, C]`` that ``method`` of the model takes.
      method: the name of the model's method.

    Raises:
      UserError: the model needs running averages, and the parameters have none.
    """
    if STATISTICS not in params and _shapes(model, params["model"], images, method):
        raise UserError(
            "the parameters have no running averages; give those of a learner that was trained with "
            "query_statistics='running', or choose another query_statistics"
        )
    return unfreeze(params.get(STATISTICS, {}))


def averaging_term(old: Statistics, new: Statistics) -> jax.Array | int:
    """A term for a loss: it is zero, and its gradient with respect to ``old`` is ``old - new``."""

    def term(old, new):
        constant = jax.lax.stop_gradient(old)
        return jnp.sum((old - constant) * (constant - jax.lax.stop_gradient(new)))

    return sum(jax.tree.leaves(jax.tree.map(term, old, new)), start=0)


def with_running_averages(optimiser: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Lets ``optimiser`` leave the running averages ``params["statistics"]`` to ``averaging_term``.

    For meta-parameters without running averages the result is the same as ``optimiser``, including its state. Further
    arguments of ``update``, such as the loss as ``value``, go on to ``optimiser``.
    """
    optimiser = optax.with_extra_args_support(optimiser)

    def init(params):
        return optimiser.init(without_statistics(params))

    def update(updates, state, params=None, **extra):
        steps, state = optimiser.update(without_statistics(updates), state, without_statistics(params), **extra)
        return with_statistics_of(steps, jax.tree.map(jnp.negative, updates)), state

    return optax.GradientTransformationExtraArgs(init, update)


def without_statistics(tree: Any) -> Any:
    """The part of meta-parameters, or of a tree like them, that an optimiser trains: all but running averages."""
    if not (isinstance(tree, Mapping) and STATISTICS in tree):
        return tree
    return type(tree)({name: part for name, part in tree.items() if name != STATISTICS})  # pyright: ignore


def with_statistics_of(tree: Any, other: Any) -> Any:
    """Gives ``tree`` the running averages of ``other``, if it has any."""
    if not (isinstance(other, Mapping) and STATISTICS in other):
        return tree
    return type(other)({**tree, STATISTICS: other[STATISTICS]})  # pyright: ignore


def _shapes(model: nn.Module, model_params: Params, images: Any, method: str) -> Any:
    return jax.eval_shape(partial(batch_statistics, model, method=method), model_params, images)
