"""Predictions on photos that a classifier did not learn from, which every honest estimate needs.

Photos of one shelf or one burst look alike. Near-duplicates stay on one side of a split, because a photo is easily
recognised by its twin.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cxgrad_jax.evaluation import log_softmax
from cxgrad_jax.photos._heads import fit_head, span

NEAR = (0.85, 0.9, 0.95)  # least cosines between the features of near-duplicates
SAME = 0.9999  # the least cosine between the features of photos that count as the same one
MOST_FOLDS = 10
ENOUGH = 150  # if one split gives fewer predictions, photos are split several times (at most three)


class Split(NamedTuple):
    """One split of the photos into folds.

    Attributes:
      folds: ``[N]``, the fold in which a photo is held out. It is -1 for a photo that never is, because nothing else of
        its class would be left.
    """

    folds: np.ndarray

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields pairs of masks ``[N]``: the photos to learn from, and those that are held out."""
        for fold in range(self.folds.max() + 1):
            yield self.folds != fold, self.folds == fold


def near_duplicates(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Groups ``[N]`` of photos that look alike: chains of pairs whose cosine is at least 0.85.

    Photos of some things look alike even if they were taken on different days. A class that would be a single group is
    divided by a higher cosine, 0.9 or 0.95, if this makes several groups.

    Args:
      features: ``[N, D]`` of length 1.
      labels: ``[N]``.
    """
    groups = _chains(features, NEAR[0])
    for label in range(labels.max() + 1):
        own = np.flatnonzero(labels == label)
        for near in NEAR[1:]:
            if len(set(groups[own].tolist())) > 1:
                break
            groups[own] = own[_chains(features[own], near)]
    return groups


def same_in_two_classes(features: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of photos of different classes whose features have a cosine of at least 0.9999, in order.

    Args:
      features: ``[N, D]`` of length 1.
      labels: ``[N]``.
    """
    row, column = _alike(features, SAME)
    wrong = (row < column) & (labels[row] != labels[column])
    return list(zip(row[wrong].tolist(), column[wrong].tolist(), strict=True))


def _alike(features: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """The photos of all pairs ``[P]``, ``[P]`` whose features ``[N, D]`` have at least this cosine."""
    rows, columns = [], []
    for start in range(0, len(features), 1000):  # in parts, so that many photos fit into memory
        row, column = np.nonzero(features[start : start + 1000] @ features.T >= near)
        rows.append(row + start)
        columns.append(column)
    return np.concatenate(rows), np.concatenate(columns)


def _chains(features: np.ndarray, near: float) -> np.ndarray:
    """For each photo, the number of the first photo that a chain of pairs with at least this cosine joins it to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row, column = _alike(features, near)
    graph = coo_array((np.ones(len(row), bool), (row, column)), shape=(len(features), len(features)))
    _, first, component = np.unique(connected_components(graph)[1], return_index=True, return_inverse=True)
    return first[component]


def splits(labels: np.ndarray, groups: np.ndarray, seed: int) -> list[Split]:
    """Splits into at most ten folds, in which every class that has two groups is held out in part.

    Each fold takes about the same share of every class, so that the remainder is a smaller set of the same kind. If no
    class has two groups of photos, there is no split.

    Args:
      labels: ``[N]``.
      groups: the result of ``near_duplicates``. A group is held out as a whole.
      seed: the seed of the order of the groups.
    """
    rng = np.random.default_rng(seed)
    members = [list(dict.fromkeys(groups[labels == label])) for label in range(labels.max() + 1)]
    most = max(map(len, members))
    if most < 2:
        return []
    found = []
    for _ in range(min(3, max(1, ENOUGH // len(labels)))):
        fold_of, next_fold = {}, 0
        count = min(most, MOST_FOLDS)
        for own in members:
            own = [group for group in own if group not in fold_of]  # a group may have photos of two classes
            if len(own) < 2:
                fold_of.update(dict.fromkeys(own, -1))
                continue
            for group in rng.permutation(own):
                fold_of[int(group)] = next_fold % count
                next_fold += 1
        found.append(Split(_kept(np.array([fold_of[group] for group in groups]), labels)))
    return [split for split in found if split.folds.max() >= 0]


def _kept(folds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Takes photos out of the folds that would leave nothing of a class to learn from."""
    folds = folds.copy()
    for fold in range(folds.max() + 1):
        for label in set(labels[folds == fold].tolist()):
            if not ((labels == label) & (folds != fold)).any():
                folds[(labels == label) & (folds == fold)] = -1
    _, numbers = np.unique(folds[folds >= 0], return_inverse=True)  # empty folds do not count
    folds[folds >= 0] = numbers
    return folds


def held_out_logits(
    kind: str, strength: float, features: np.ndarray, labels: np.ndarray, splits: list[Split]
) -> np.ndarray:
    """The logits of every photo by heads that did not see it.

    Returns:
      ``[splits, N, classes]``, with NaN for photos that are never held out.
    """
    num_classes = labels.max() + 1
    features = features @ span(features)  # fewer numbers, the same products
    logits = np.full((len(splits), len(labels), num_classes), np.nan)
    for number, split in enumerate(splits):
        for seen, held in split.pairs():
            head = fit_head(kind, strength, features[seen], labels[seen], num_classes)
            logits[number, held] = head.logits(features[held])
    return logits


def log_likelihoods(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log-likelihood ``[N]`` of each photo's class, from logits ``[N, classes]`` divided by a temperature."""
    return np.take_along_axis(log_softmax(logits), labels[:, None], axis=1)[:, 0]
