"""What adaptation does to a network: each function takes one episode and gives arrays; ``jax.vmap`` over a batch.

They work for every learner whose ``adapt`` returns a trace with ``"fast"`` (see ``learners.Adapted``), on any model.
"""

from cxgrad_jax.analysis._cka import cka, linear_cka
from cxgrad_jax.analysis._conditioning import adapt_with_factors, conditioning
from cxgrad_jax.analysis._embeddings import embeddings, joint_tsne
from cxgrad_jax.analysis._features import before_and_after, features, unadapted
from cxgrad_jax.analysis._gradient_norms import gradient_norms
from cxgrad_jax.analysis._landscape import landscape

__all__ = [
    "adapt_with_factors", "before_and_after", "cka", "conditioning", "embeddings", "features", "gradient_norms",
    "joint_tsne", "landscape", "linear_cka", "unadapted",
]  # fmt: skip
