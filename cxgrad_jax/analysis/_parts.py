"""Adapting only the head, or only the body: a direct test of the paper's "representation change".

BOIL (https://arxiv.org/abs/2008.08882) and the CxGrad paper ask whether adaptation changes the features or only the
classifier on top of them. Here the inner loop of a trained learner runs with the other part held constant.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from cxgrad_jax.analysis._features import adapted_to, at_own_statistics, inner_states, model_of, unadapted
from cxgrad_jax.episodes import Episode
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._model import Params, taken_for_constants
from cxgrad_jax.learners._modules import head_name

PARTS = ("none", "head", "body", "all")


def logits_by_part(learner: MetaLearner, params: Params, episode: Episode) -> dict[str, jax.Array]:
    """Query logits ``[N, way]`` if only a part of the network adapts.

    The layer that the model calls last is the head, and all others are the body. The part that does not adapt gets no
    gradients in the inner loop. Changes without gradients stay: CxGrad's scaling, L2F's attenuation and ALFA's decay.
    But L2F, ALFA and CxGrad generate them from gradients, which then are zero in that part, so they differ from those
    of a full adaptation. In MeTAL the part still moves a little, because its loss also sees the means of all
    parameters.

    Returns:
      The logits for each of ``PARTS``: nothing, the head, the body or all of what the learner adapts has adapted.

    Raises:
      UserError: the learner adapts no parameters.
    """
    adapted = adapted_to(learner, params, episode)
    is_head = head_of(model_of(learner), params["model"], episode.support_images)
    adapting = [is_head(path) for path in inner_states(adapted)]

    def logits_of(state):
        return learner.predict(params, state, episode.query_images)

    def adapted_with(constant: Callable[[str], bool]):
        with taken_for_constants(constant):
            return logits_of(adapted_to(learner, params, episode))

    start = at_own_statistics(learner, adapted, unadapted(adapted), episode.support_images)
    none, everything = logits_of(start), logits_of(adapted)
    if all(adapting) or not any(adapting):  # ANIL or BOIL: one part adapts in any case
        head, body = (everything, none) if all(adapting) else (none, everything)
    else:
        head, body = adapted_with(lambda path: not is_head(path)), adapted_with(is_head)
    return {"none": none, "head": head, "body": body, "all": everything}


def head_of(model: nn.Module, model_params: Params, images: jax.Array) -> Callable[[str], bool]:
    """Makes the function that says whether a parameter's path belongs to the head, the last layer with parameters."""
    head = head_name(model, model_params, images)
    return lambda path: path.split("/")[0] == head
