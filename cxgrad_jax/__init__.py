"""CxGrad and its relatives: few-shot meta-learning in JAX.

    model = cxgrad_jax.models.Conv4(num_classes=5)
    learner = cxgrad_jax.learners.cxgrad(model)
    params = learner.init(jax.random.key(0), images)
    adapted = learner.adapt(params, support_images, support_labels)
    logits = learner.predict(params, adapted, query_images)

Every function of a learner is pure and takes one episode: ``jax.vmap`` over a batch of them.
"""

__version__ = "0.1.0"  # the metadata of the package take it from here

from cxgrad_jax import analysis, data, interop, learners, models
from cxgrad_jax.episodes import Episode, HostDrawer, Shape
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner

__all__ = [
    "Episode", "HostDrawer", "MetaLearner", "Shape", "UserError", "__version__",
    "analysis", "data", "interop", "learners", "models",
]  # fmt: skip
