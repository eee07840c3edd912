"""What an outer iteration changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cxgrad_jax.learners import MetaLearner


class TrainState(NamedTuple):
    """Everything that an outer iteration changes, and all that a checkpoint holds.

    Attributes:
      params: meta-parameters, the pytree of ``MetaLearner.init``.
      opt_state: Adam's moments.
      iteration: int32 scalar, outer iterations done.
    """

    params: Any
    opt_state: optax.OptState
    iteration: jax.Array


def outer_optimiser(
    learning_rate: float, decay_every: int = 0, decay_factor: float = 1.0, gradient_clamp: float = 0.0
) -> optax.GradientTransformation:
    """Adam as the official code runs it: constant rate, betas 0.9 and 0.999, eps 1e-8, no weight decay.

    Args:
      learning_rate: at the start.
      decay_every: iterations after which the rate is multiplied by ``decay_factor``, again and again; 0: never.
      decay_factor: see there.
      gradient_clamp: every entry of the gradient is first cut to ± this; 0: not.
    """
    schedule = (
        optax.exponential_decay(learning_rate, decay_every, decay_factor, staircase=True) if decay_every else None
    )
    adam = optax.adam(learning_rate if schedule is None else schedule)
    return optax.chain(optax.clip(gradient_clamp), adam) if gradient_clamp else adam


def init_state(learner: MetaLearner, optimiser: optax.GradientTransformation, seed: int, images: Any) -> TrainState:
    """The state before the first iteration: a pure function of the seed and of the shape of ``images [N, H, W, C]``."""

    def init(images):
        params = learner.init(jax.random.key(seed, impl="threefry2x32"), images)
        return TrainState(params, optimiser.init(params), jnp.zeros((), jnp.int32))

    return jax.jit(init)(images)


def abstract_state(learner: MetaLearner, optimiser: optax.GradientTransformation, images: Any, mesh: Mesh) -> Any:
    """Shapes, dtypes and place (a copy on every device) of ``init_state``: what ``Checkpoints.restore`` takes."""
    everywhere = NamedSharding(mesh, P())
    shapes = jax.eval_shape(lambda: init_state(learner, optimiser, 0, images))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
