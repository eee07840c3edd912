"""The same episode with its classes numbered in every order.

A learner whose head has a row of its own for each class starts differently for each order of the classes. UNICORN-MAML
(Ye and Chao, ICLR 2022; https://arxiv.org/abs/2106.16245) showed how far MAML's accuracy depends on the order.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cxgrad_jax.arguments import check_episode, check_learner, check_whole
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._model import Params

MOST = 720  # permutations of an episode, those of 6 classes


def permutations(way: int) -> np.ndarray:
    """All orders of the classes in lexicographic order, int32 ``[way!, way]``. In order p, class ``p[j]`` has label j.

    Raises:
      UserError: ``way`` is not a whole number from 1 to 6.
    """
    check_whole("way", way)
    if math.factorial(way) > MOST:
        raise UserError(f"{way} classes have {math.factorial(way)} permutations; expected at most 6 classes, {MOST}")
    return np.array(list(itertools.permutations(range(way))), np.int32)


def permuted_logits(learner: MetaLearner, params: Params, episode: Episode, way: int) -> jax.Array:
    """Query logits ``[way!, N, classes]`` after adaptation to each order of the classes, as ``permutations`` has them.

    Columns are the classes as the episode numbers them, so that its labels serve all orders. If the model tells more
    classes apart than the episode has, those columns follow.

    Args:
      learner: the learner, which adapts to each order.
      params: the meta-parameters.
      episode: the episode whose labels are renumbered.
      way: its number of classes.

    Raises:
      UserError: ``learner`` or ``episode`` has the wrong type, the support labels are not 0 to way - 1, or ``way`` is
        above 6.
    """
    check_learner(learner)
    check_episode(episode)
    check_whole("way", way)
    if not isinstance(episode.support_labels, Tracer):
        found = np.unique(episode.support_labels).tolist()
        if found != list(range(way)):
            raise UserError(f"way is {way}, but the support labels of the episode are {found}; expected 0 to {way - 1}")

    def logits_of(label_of_class):
        labels = label_of_class[episode.support_labels]
        adapted = learner.adapt(params, episode.support_images, labels)
        logits = learner.predict(params, adapted, episode.query_images)
        return jnp.concatenate([logits[:, label_of_class], logits[:, way:]], axis=1)

    return jax.lax.map(logits_of, jnp.asarray(np.argsort(permutations(way), axis=-1), jnp.int32))
