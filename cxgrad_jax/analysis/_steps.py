"""Query logits after every inner step."""

import jax
import jax.numpy as jnp

from cxgrad_jax.analysis._features import adapted_to, at_own_statistics, inner_states, with_fast
from cxgrad_jax.episodes import Episode
from cxgrad_jax.learners import MetaLearner, by_path
from cxgrad_jax.learners._model import Params


def logits_by_step(learner: MetaLearner, params: Params, episode: Episode) -> jax.Array:
    """Query logits ``[steps + 1, N, way]`` before the first inner step and after each.

    The last are those of ``predict``. With ``query_statistics="support"`` the support set's statistics are those at
    each state. CxGrad's kernels are scaled, and L2F's parameters are attenuated, before the first step. If a
    normalisation learns a row for every step (MAML++), the last row serves all states.

    Raises:
      UserError: the learner adapts no parameters.
    """
    adapted = adapted_to(learner, params, episode)
    before = inner_states(adapted)
    last = by_path(adapted.model)
    states = {path: jnp.concatenate([x, last[path][None]]) for path, x in before.items()}

    def logits_at(fast):
        state = at_own_statistics(learner, adapted, with_fast(adapted, fast), episode.support_images)
        return learner.predict(params, state, episode.query_images)

    return jax.lax.map(logits_at, states)
