"""Familiarity: how much a photo is like those that a classifier learned from, for the answer "none of these".

The familiarity of features f of length 1 is the largest of ``f . (c - m / 2)`` over the centroids c of the classes.
Here m is the mean of all centroids, each scaled to length 1. Half of m takes away what all photos of the set have in
common. In a test with whole classes left out (``benchmarks/photos.py``), this told photos of no class apart better than
the head's own probability, and better than the cosine to the nearest photo or centroid.
"""

import numpy as np

from cxgrad_jax.photos._held_out import Split

REFUSED = 0.05  # without other photos, the threshold turns away this share of the held-out photos of known classes


def prototypes(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The columns ``c - m / 2`` ``[D, classes]`` for the labels that occur."""
    centroids = unit(np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)]))
    return np.asarray(centroids - unit(centroids.mean(axis=0)) / 2, np.float32).T


def familiarity(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """The familiarity ``[N]`` of features ``[N, D]`` with prototypes ``[D, classes]``."""
    return (features @ prototypes).max(axis=1)


def held_out_familiarity(features: np.ndarray, labels: np.ndarray, splits: list[Split]) -> np.ndarray:
    """The familiarity ``[M]`` of all held-out photos, over all splits."""
    found = [np.zeros(0)]
    for split in splits:
        for seen, held in split.pairs():
            found.append(familiarity(features[held], prototypes(features[seen], labels[seen])))
    return np.concatenate(found)


def threshold(known: np.ndarray, others: np.ndarray | None) -> float | None:
    """The familiarity below which a photo is none of the classes.

    Args:
      known: the familiarity of held-out photos of the classes. It may be empty.
      others: the familiarity of photos that are none of these, or None if there are no such photos.

    Returns:
      With ``others``, the threshold that treats both kinds right most often, where both kinds weigh the same. Without,
      the one that turns 5 % of the known photos away. None if there are no photos at all.
    """
    if others is None:
        return float(np.quantile(known, REFUSED)) if len(known) else None
    if not len(known):
        return float(np.quantile(others, 1 - REFUSED))
    values = np.unique(np.concatenate([known, others]))
    steps = (values[1:] + values[:-1]) / 2
    right = [(known >= step).mean() + (others < step).mean() for step in steps]
    return float(steps[int(np.argmax(right))]) if len(steps) else float(values[0])


def auroc_of_left_out_classes(features: np.ndarray, labels: np.ndarray, split: Split) -> float | None:
    """How well familiarity tells photos of a class that was left out from held-out photos of the others.

    It is the area under the ROC curve, where 0.5 is chance, as the mean over the classes, each left out in turn. None
    means that there are fewer than three classes, or that nothing is held out.
    """
    if labels.max() < 2:
        return None
    areas = []
    for label in range(labels.max() + 1):
        known, unknown = [], []
        for seen, held in split.pairs():
            like = prototypes(features[seen & (labels != label)], labels[seen & (labels != label)])
            known.append(familiarity(features[held & (labels != label)], like))
            unknown.append(familiarity(features[held & (labels == label)], like))
        known, unknown = np.concatenate(known), np.concatenate(unknown)
        if len(known) and len(unknown):
            areas.append(auroc(known, unknown))
    return float(np.mean(areas)) if areas else None


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """The share of pairs in which the known photo is the more familiar one. Equal pairs count half."""
    ordered = np.sort(unknown)
    below, up_to = (np.searchsorted(ordered, known, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(unknown))


def unit(x: np.ndarray) -> np.ndarray:
    """Scales vectors ``[..., D]`` to length 1. Zeros stay zeros."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
