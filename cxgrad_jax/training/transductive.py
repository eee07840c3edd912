"""What a prediction of a run depends on: its own image, or all query images of its episode."""

from cxgrad_jax.training.config import ConfigDict


def batch_norm(config: ConfigDict) -> str:
    """The statistics, in words, that normalise query images, and what else a prediction sees."""
    sees_all = is_transductive(config)
    norm = config.model.get("norm", "batch")
    if norm != "batch":
        words = f"none ({norm} norm, statistics of each image alone)"
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
    return config.model.get("norm", "batch") == "batch" or config.learner.name == "metal"
