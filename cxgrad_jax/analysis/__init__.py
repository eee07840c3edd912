"""Measures of what adaptation does to a network.

Most functions take a learner, its meta-parameters and one episode. ``jax.vmap`` or ``jax.lax.map`` takes them over a
batch of episodes.

``calibration`` takes the logits of many episodes. The others work for every learner whose ``adapt`` returns a trace
with ``"fast"`` (see ``learners.Adapted``), on any model.
"""

from cxgrad_jax.analysis._calibration import Calibration, calibration
from cxgrad_jax.analysis._cka import cka, linear_cka
from cxgrad_jax.analysis._conditioning import adapt_with_factors, conditioning
from cxgrad_jax.analysis._embeddings import embeddings, joint_tsne
from cxgrad_jax.analysis._features import before_and_after, features, unadapted
from cxgrad_jax.analysis._gradient_norms import gradient_norms
from cxgrad_jax.analysis._landscape import landscape
from cxgrad_jax.analysis._parts import PARTS, logits_by_part
from cxgrad_jax.analysis._permutations import permutations, permuted_logits
from cxgrad_jax.analysis._steps import logits_by_step

__all__ = [
    "PARTS", "Calibration", "adapt_with_factors", "before_and_after", "calibration", "cka", "conditioning",
    "embeddings", "features", "gradient_norms", "joint_tsne", "landscape", "linear_cka", "logits_by_part",
    "logits_by_step", "permutations", "permuted_logits", "unadapted",
]  # fmt: skip
