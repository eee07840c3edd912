"""The support loss around the states of the inner loop (appendix C of the CxGrad paper, Eqs. 9-12).

    h(theta) = dL(theta; S)/dtheta                                  at theta_s, the state before inner step s
    theta_s^j = theta_s - a_j h(theta_s)                            Eq. 9: points around it, rates a_1 ... a_J
    loss        L(theta_s^j; S)                                     Eq. 10
    distance    ||h(theta_s^j) - h(theta_s)||                       Eq. 11, "gradient predictiveness"
    smoothness  distance at j* / ||a_j* h(theta_s)||                Eq. 12, j* where the distance is largest

theta are the adapting parameters. For CxGrad they are the scaled kernels and the head, with the factors of the step
held fixed. Eq. 11 prints h(theta) without the step; here it is taken as h(theta_s).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cxgrad_jax.analysis._features import adapted_to, inner_states, with_fast
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._losses import cross_entropy
from cxgrad_jax.learners._model import Params

RATES = tuple(0.005 * j for j in range(1, 9))  # the paper's: 0.5 to 4 times its alpha, 0.01, in eight equal steps


class Landscape(NamedTuple):
    """The landscape of one episode, by inner step s and rate j.

    Attributes:
      loss: ``[steps, J]`` in nats, Eq. 10.
      distance: ``[steps, J]``, Eq. 11.
      smoothness: ``[steps]``, Eq. 12.
    """

    loss: jax.Array
    distance: jax.Array
    smoothness: jax.Array


def landscape(learner: MetaLearner, params: Params, episode: Episode, rates: tuple[float, ...] = RATES) -> Landscape:
    """The loss and its gradient at the points of Eq. 9, all on the support set.

    The loss is that of ``learner.predict``. Three learners use a different loss in the inner loop: UNICORN-MAML divides
    only the logits of ``predict`` by its temperature, MAML++ normalises by a row for each step, ``predict`` by the
    last, and MeTAL adds a learned loss.

    Args:
      learner: a learner that adapts parameters.
      params: the meta-parameters.
      episode: the episode, of which the query set is not used.
      rates: a_1 ... a_J.

    Raises:
      UserError: the learner adapts nothing, or ``rates`` is empty or not a sequence.
    """
    if np.ndim(rates) != 1 or np.size(rates) == 0:
        raise UserError(f"rates is {rates!r}; expected one number or more, such as (0.005, 0.01)")
    adapted = adapted_to(learner, params, episode)

    def loss_of(fast):
        logits = learner.predict(params, with_fast(adapted, fast), episode.support_images)
        return cross_entropy(logits, episode.support_labels)

    def around(fast):
        gradient = jax.grad(loss_of)(fast)

        def point(rate):
            moved = jax.tree.map(lambda x, g: x - rate * g, fast, gradient)
            loss, there = jax.value_and_grad(loss_of)(moved)
            return loss, optax.tree.norm(optax.tree.sub(there, gradient))

        dtype = jax.tree.leaves(fast)[0].dtype
        all_rates = jnp.asarray(rates, dtype)
        loss, distance = jax.lax.map(point, all_rates)
        farthest = jnp.argmax(distance)
        return Landscape(loss, distance, distance[farthest] / (all_rates[farthest] * optax.tree.norm(gradient)))

    return jax.lax.map(around, inner_states(adapted))
