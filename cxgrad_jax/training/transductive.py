"""What a prediction of a run depends on: its own image, or all query images of its episode."""

import jax
import jax.numpy as jnp

from cxgrad_jax.learners._model import batch_statistics, init_model
from cxgrad_jax.training.build import build_model
from cxgrad_jax.training.config import ConfigDict


def batch_norm(config: ConfigDict) -> str:
    """The statistics, in words, that normalise query images, and what else a prediction sees."""
    sees_all = is_transductive(config)
    if not has_batch_norm(config):
        norm = config.model.get("norm")
        words = f"none ({norm} norm, statistics of each image alone)" if norm else "none (no batch normalisation)"
        return f"{words}; the inner loop sees all query images: transductive" if sees_all else words
    words = {
        "support": "statistics of the support set at the adapted parameters (each query image alone: inductive)",
        "running": "running averages of training (each query image alone: inductive)",
    }
    jointly = "statistics of the current batch, in training and test (query images jointly: transductive)"
    return words.get(config.learner.get("query_statistics", "query"), jointly)


def is_transductive(config: ConfigDict) -> bool:
    """Whether a prediction depends on the other query images of its episode.

    It does if query images are normalised by their own batch, and in MeTAL, whose inner loop sees all of them.
    """
    if config.learner.get("query_statistics", "query") != "query":
        return False
    return has_batch_norm(config) or config.learner.name == "metal"


def has_batch_norm(config: ConfigDict) -> bool:
    """Whether the model has batch normalisations: as its field ``norm`` says, else as it runs."""
    if "norm" in config.model:
        return config.model.norm == "batch"
    model, size = build_model(config), config.data.image_size

    def statistics(images):
        return batch_statistics(model, init_model(model, jax.random.key(0), images)[1], images)

    return bool(jax.eval_shape(statistics, jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)))
