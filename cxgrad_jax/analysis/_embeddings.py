"""Features of the last block before and after adaptation, and their picture by t-SNE (Figure 4 of the CxGrad paper)."""

import jax
import numpy as np

from cxgrad_jax.analysis._features import before_and_after
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._model import Params


def embeddings(learner: MetaLearner, params: Params, episode: Episode) -> tuple[jax.Array, jax.Array]:
    """The inputs of the head, the last layer, for the query images before and after adaptation: two ``[N, D]``.

    Raises:
      UserError: the learner adapts nothing.
    """
    before, after = before_and_after(learner, params, episode)
    block = list(before)[-2]
    return before[block], after[block]


def joint_tsne(before: np.ndarray, after: np.ndarray, perplexity: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts both representations ``[N, D]`` into one plane, by one t-SNE of their 2 N points (scikit-learn).

    Args:
      before: ``[N, D]``.
      after: ``[N, D]``.
      perplexity: the perplexity of the t-SNE.
      seed: the seed of the t-SNE.

    Returns:
      The points before and after, two ``[N, 2]``.

    Raises:
      UserError: the perplexity is not below the number of points.
    """
    from sklearn.manifold import TSNE  # the extra "analysis" has it

    points = np.concatenate([np.asarray(before), np.asarray(after)])
    if not 0 < perplexity < len(points):
        raise UserError(f"perplexity is {perplexity}; expected between 0 and the {len(points)} points")
    plane = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(points)
    return plane[: len(before)], plane[len(before) :]
