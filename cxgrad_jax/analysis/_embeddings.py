"""Features of the last block before and after adaptation, and their picture by t-SNE (Figure 4 of the CxGrad paper)."""

import jax
import numpy as np

from cxgrad_jax.analysis._features import before_and_after
from cxgrad_jax.arguments import as_array, check_seed, is_finite
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._model import Params


def embeddings(learner: MetaLearner, params: Params, episode: Episode) -> tuple[jax.Array, jax.Array]:
    """The inputs of the head, the last layer, for the query images before and after adaptation: two ``[N, D]``.

    Raises:
      UserError: the learner adapts nothing, or its model has one layer.
    """
    before, after = before_and_after(learner, params, episode)
    if len(before) < 2:
        raise UserError(
            f"the model has the layer {next(iter(before))} alone; embeddings are of a layer before the head"
        )
    block = list(before)[-2]
    return before[block], after[block]


def joint_tsne(before: np.ndarray, after: np.ndarray, perplexity: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts both representations ``[N, D]`` into one plane, by one t-SNE of their 2 N points (scikit-learn).

    Args:
      before: finite numbers ``[N, D]``, D at least 2.
      after: finite numbers ``[N, D]``.
      perplexity: the perplexity of the t-SNE, below 2 N.
      seed: the seed of the t-SNE, 0 to 4294967295.

    Returns:
      The points before and after, two ``[N, 2]``.

    Raises:
      UserError: the arrays have the wrong shape or dtype, hold NaN or Inf, or have the same row for every image; or
        ``seed`` or ``perplexity`` is out of range.
    """
    from sklearn.manifold import TSNE  # the extra "analysis" has it

    before, after = (np.asarray(as_array(name, x)) for name, x in (("before", before), ("after", after)))
    if before.ndim != 2 or before.shape != after.shape or before.shape[1] < 2:
        raise UserError(
            f"before and after have shapes {list(before.shape)} and {list(after.shape)}; expected [N, D] twice, D at "
            "least 2"
        )
    points = np.concatenate([before, after])
    if points.dtype.kind not in "fiub" or not np.isfinite(points).all():
        raise UserError(f"before and after have dtype {points.dtype} or hold NaN or Inf; expected finite numbers")
    if (points == points[0]).all():
        raise UserError("before and after are the same features for every image; a plane of one point shows nothing")
    check_seed(seed)
    if not (is_finite(perplexity) and 0 < perplexity < len(points)):
        raise UserError(f"perplexity is {perplexity!r}; expected a number between 0 and the {len(points)} points")
    plane = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(points)
    return plane[: len(before)], plane[len(before) :]
