"""The accuracy that a classifier can promise, estimated from its own photos."""

import math
from typing import NamedTuple

import numpy as np

from cxgrad_jax.photos._familiarity import auroc_of_left_out_classes, held_out_familiarity
from cxgrad_jax.photos._heads import WITHOUT_ESTIMATE, Head, candidates, fit_head, fit_temperature
from cxgrad_jax.photos._held_out import held_out_logits, log_likelihoods, near_duplicates, splits

GROWTH = 0.5  # the odds of the skill grow with this power of the number of photos; see ``grown``
VARIANCE = 1.5  # the variance of held-out shares over that of independent trials, since the heads share photos
EQUAL = 0.02  # likelihoods that differ by less nats a photo count as equal
HISTOGRAM_STRENGTH = 10.0  # the weight C of the loss in logistic regression on colour histograms
TEMPERATURE_WITHOUT_ESTIMATE = {"centroid": 0.06, "logistic": 0.35}


class Estimate(NamedTuple):
    """What held-out photos say of a classifier. All shares are in [0, 1]. None means that nothing could be held out.

    Attributes:
      accuracy: the expected share of right answers for photos like the given ones, or None. It is the share of held-out
        photos, carried over to the whole number of photos (``grown``).
      interval: the 95 % interval of the accuracy, or None.
      per_class: for each class, the share of its held-out photos that were recognised, as counted; None if it has none.
      photos: the number of photos of each class.
      groups: the number of photos of each class that are not near-duplicates of each other.
      chance: the accuracy of guessing.
      histogram: the expected accuracy of logistic regression on colour histograms, which is a baseline; or None.
      auroc: how well familiarity tells apart photos of classes that were left out, or None. 0.5 is chance.
      note: one line on what could not be estimated, or "".
      largest: the accuracy of always naming the class with most photos, which is its share of the held-out photos. It
        is ``chance`` if all classes have the same number of photos. None in files of earlier versions.
      most_frequent: the share of the most frequent class among the held-out photos. It may be another class, of which
        more photos could be held out. None in files of earlier versions.
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    per_class: dict[str, float | None]
    photos: dict[str, int]
    groups: dict[str, int]
    chance: float
    histogram: float | None
    auroc: float | None
    note: str
    largest: float | None = None
    most_frequent: float | None = None

    @property
    def is_worth_it(self) -> bool:
        """Whether it is expected to be better than the baseline, than guessing and than always naming one class."""
        rivals = (self.chance, self.histogram or 0, self.largest or 0, self.most_frequent or 0)
        return self.accuracy is not None and self.accuracy > max(rivals)


class Fitted(NamedTuple):
    """A head, its estimate, and the familiarity of the held-out photos."""

    head: Head
    estimate: Estimate
    familiarity: np.ndarray


def fit_and_estimate(
    features: np.ndarray, histograms: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], head: str, seed: int
) -> Fitted:
    """Chooses a head by the likelihood of held-out photos, fits it to all photos, and estimates its accuracy.

    Among the heads whose likelihood is within one standard error of the best, it takes the simplest.

    Args:
      features: float32 ``[N, D]`` of length 1.
      histograms: float32 ``[N, bins]``.
      labels: ``[N]``, each class at least once.
      class_names: the names of the classes.
      head: ``"auto"`` or one of ``HEADS``.
      seed: the seed of the splits.
    """
    groups = near_duplicates(features, labels)
    parts = splits(labels, groups, seed)
    if not parts:
        return _without_estimate(features, labels, groups, class_names, head)

    held_out = [held_out_logits(*each, features, labels, parts) for each in candidates(head)]
    kept = ~np.isnan(held_out[0]).any(axis=(0, 2))
    truths = labels[kept]
    temperatures, likelihoods = [], []
    for logits in held_out:
        temperature = fit_temperature(np.concatenate(logits[:, kept]), np.tile(truths, len(parts)))
        temperatures.append(temperature)
        likelihoods.append(np.mean([log_likelihoods(each / temperature, truths) for each in logits[:, kept]], axis=0))
    chosen = _simplest_of_equals(np.stack(likelihoods))
    kind, strength = candidates(head)[chosen]
    fitted = fit_head(kind, strength, features, labels, len(class_names))
    fitted = fitted._replace(temperature=temperatures[chosen])

    chance, share = 1 / len(class_names), float(np.mean([seen.mean() for part in parts for seen, _ in part.pairs()]))
    right = (held_out[chosen][:, kept].argmax(axis=-1) == truths).mean(axis=0)  # for each photo, over the splits
    baseline = held_out_logits("logistic", HISTOGRAM_STRENGTH, histograms, labels, parts[:1])[0, kept]
    independent = len({(group, label) for group, label in zip(groups[kept], truths, strict=True)})
    accuracy = grown(float(right.mean()), chance, share)
    estimate = Estimate(
        accuracy=accuracy,
        interval=wilson(accuracy, independent / VARIANCE),
        per_class={
            name: float(right[truths == label].mean()) if (truths == label).any() else None
            for label, name in enumerate(class_names)
        },
        photos=_count(labels, class_names),
        groups=_count_groups(groups, labels, class_names),
        chance=chance,
        histogram=grown(float((baseline.argmax(axis=-1) == truths).mean()), chance, share),
        auroc=auroc_of_left_out_classes(features, labels, parts[0]),
        note=_note([name for label, name in enumerate(class_names) if not (truths == label).any()]),
        **_shares_of_one_class(labels, truths),
    )
    return Fitted(fitted, estimate, held_out_familiarity(features, labels, parts))


def grown(accuracy: float, chance: float, share: float) -> float:
    """The accuracy with all photos, from the accuracy with a ``share`` of them.

    If photos are held out, the head learns from fewer. With two photos a class it learns from one, which made estimates
    12 percentage points too low. On the photographs of ``benchmarks/photos.py`` the odds of the skill
    ``(accuracy - chance) / (1 - chance)`` grew with about the square root of the number of photos. If nothing was
    learned, the skill stays 0.
    """
    skill = (accuracy - chance) / (1 - chance)
    if not 0 < skill < 1:
        return accuracy
    odds = skill / (1 - skill) * share**-GROWTH
    return chance + (1 - chance) * odds / (1 + odds)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of the share of ``count`` independent trials."""
    z = 1.96  # standard deviations, of 95 %
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _simplest_of_equals(likelihoods: np.ndarray) -> int:
    """The first row of ``[candidates, N]`` whose mean is within one standard error, or ``EQUAL``, of the best."""
    best = likelihoods[likelihoods.mean(axis=1).argmax()]
    behind = best - likelihoods
    error = behind.std(axis=1) / math.sqrt(likelihoods.shape[1])
    return int(np.argmax(behind.mean(axis=1) <= np.maximum(error, EQUAL)))


def _without_estimate(features, labels, groups, class_names, head) -> Fitted:
    kind, strength = WITHOUT_ESTIMATE if head in ("auto", WITHOUT_ESTIMATE[0]) else candidates(head)[0]
    fitted = fit_head(kind, strength, features, labels, len(class_names))
    fitted = fitted._replace(temperature=TEMPERATURE_WITHOUT_ESTIMATE[kind])
    one = len(labels) == len(class_names)
    reason = "one photo a class" if one else "the photos of each class are near-duplicates of each other"
    note = f"no estimate can be made: {reason}; two different photos of each class are the least"
    photos, kinds = _count(labels, class_names), _count_groups(groups, labels, class_names)
    nothing = dict.fromkeys(class_names)
    estimate = Estimate(None, None, nothing, photos, kinds, 1 / len(class_names), None, None, note)
    return Fitted(fitted, estimate, np.zeros(0, np.float32))


def _shares_of_one_class(labels: np.ndarray, judged: np.ndarray) -> dict[str, float]:
    """The accuracies of always naming one class. Of equal classes none is the largest, so both are those of chance."""
    counts = np.bincount(labels)
    if len(set(counts.tolist())) == 1:
        return dict.fromkeys(("largest", "most_frequent"), 1 / len(counts))
    shares = np.bincount(judged, minlength=len(counts)) / len(judged)
    return {"largest": float(shares[counts == counts.max()].max()), "most_frequent": float(shares.max())}


def _note(classes: list[str]) -> str:
    if not classes:
        return ""
    names = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    return f"no estimate can be made of {names}: a class needs two photos that are not near-duplicates"


def _count(labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, int]:
    return {name: int((labels == label).sum()) for label, name in enumerate(class_names)}


def _count_groups(groups: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, int]:
    return {name: len(set(groups[labels == label].tolist())) for label, name in enumerate(class_names)}
