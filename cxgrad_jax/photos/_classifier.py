"""A classifier of photos, which is fitted on a folder and then makes predictions."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxgrad_jax.arguments import as_path, check_function, check_seed
from cxgrad_jax.errors import UserError
from cxgrad_jax.photos._backbones import Backbone, find_backbone, with_statistics
from cxgrad_jax.photos._estimate import Estimate, fit_and_estimate
from cxgrad_jax.photos._familiarity import familiarity, prototypes, threshold
from cxgrad_jax.photos._features import all_features, each_photo
from cxgrad_jax.photos._folders import PathLike, labelled_photos, photos_in
from cxgrad_jax.photos._heads import HEADS, Head
from cxgrad_jax.photos._held_out import same_in_two_classes
from cxgrad_jax.photos._preprocessing import digest_of, read_views

NONE = "none of these"
DECIMALS = 7  # of rounded probabilities and familiarities


class Prediction(NamedTuple):
    """The prediction for one photo. Its fields are the columns of the CSV file.

    Attributes:
      file: the photo's path as it was found.
      label: the best class, or "none of these" if the familiarity is below the classifier's threshold.
      probability: the probability of the best class, in [0, 1].
      best: the most probable class.
      runner_up: the second most probable class.
      runner_up_probability: its probability, in [0, 1].
      familiarity: how much the photo is like those that the classifier learned from. Larger is more.
    """

    file: str
    label: str
    probability: float
    best: str
    runner_up: str
    runner_up_probability: float
    familiarity: float


class Classifier(NamedTuple):
    """A classifier of photos.

    Attributes:
      backbone: the network, its weights and the preprocessing.
      class_names: the names of the classes.
      head: the function from features to logits.
      prototypes: float32 ``[D, classes]``, for the familiarity.
      threshold: the familiarity below which a photo is none of these. None means that no photos gave one.
      estimate: the accuracy that it promises.
      digests: SHA-256 of each photo that it was made from. Files of earlier versions have none.
    """

    backbone: Backbone
    class_names: tuple[str, ...]
    head: Head
    prototypes: np.ndarray
    threshold: float | None
    estimate: Estimate
    digests: frozenset[str] = frozenset()

    def predict(self, photos: PathLike | Iterable[PathLike]) -> list[Prediction]:
        """Predicts each photo alone. The answer for one is the same whatever else is in the call.

        Args:
          photos: files, and folders, which stand for all photos in them.

        Raises:
          UserError: a file or folder does not exist, or a photo cannot be read.
        """
        paths = photos_in(photos)
        if not paths:
            return []
        features = all_features(self.backbone, paths)
        if features.errors:
            raise features.errors[0]
        return self.predict_features(paths, features.features)

    def predict_features(self, paths: Sequence[Path], features: np.ndarray) -> list[Prediction]:
        """Makes predictions from features ``[N, D]`` of the photos.

        Raises:
          UserError: the features have the wrong shape.
        """
        expected = (len(paths), len(self.prototypes))
        if np.shape(features) != expected:
            raise UserError(
                f"features have shape {list(np.shape(features))}; expected {list(expected)}, as all_features gives "
                "them for these photos and this backbone"
            )
        names, predictions = self.class_names, []
        # The order of a sum over a thousand numbers changes its rounding. It depends on the number of photos and their
        # place in memory. In double precision seven decimals are the same in any order.
        features = np.asarray(features, np.float64)
        probabilities = np.round(self.head.probabilities(features), DECIMALS)
        known = np.round(familiarity(features, np.asarray(self.prototypes, np.float64)), DECIMALS)
        for path, row, familiar in zip(paths, probabilities.tolist(), known.tolist(), strict=True):
            best, second = np.argsort(np.negative(row), kind="stable")[:2]
            none = self.threshold is not None and familiar < self.threshold
            label = NONE if none else names[best]
            predictions.append(
                Prediction(str(path), label, row[best], names[best], names[second], row[second], familiar)
            )
        return predictions

    def save(self, path: PathLike) -> None:
        """Writes one safetensors file with all that predictions need, the backbone included, whole or not at all.

        Raises:
          UserError: the backbone's model is not this package's, or the file cannot be written.
        """
        from cxgrad_jax.photos._saving import save_classifier

        save_classifier(path, self)


def fit(
    folder: PathLike,
    *,
    backbone: str | os.PathLike[str] | Backbone = "efficientnet_lite0",
    head: str = "auto",
    others: PathLike | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Classifier:
    """Makes a classifier from a folder of labelled photos.

        clf = cx.photos.fit("PHOTOS")
        print(clf.estimate.accuracy, clf.predict("new.jpg"))

    Args:
      folder: ``folder/CLASS/*.jpg``, at least two classes of at least one photo.
      backbone: ``"efficientnet_lite0"`` (or 1, 2; extra ``photos``), the name of bundled weights, a file that
        ``cx.save`` wrote, or a ``Backbone``.
      head: ``"centroid"``, ``"logistic"``, or ``"auto"``, which takes the one with the higher likelihood of held-out
        photos.
      others: a folder of photos that are none of the classes, for the threshold of "none of these".
      seed: the seed of the splits for the estimate.
      progress: a function that is called after each photo with the number of photos done and of all photos.
      tell: a function that is called with a line about photos that are the same and have different classes, if there
        are any.

    Raises:
      UserError: the folder has a different layout, a class is called "none of these", a photo cannot be read, or an
        argument has a value that cannot be used.
    """
    if head not in ("auto", *HEADS):
        raise UserError(f"head is {head!r}; expected one of auto, {', '.join(HEADS)}")
    check_seed(seed)
    if progress is not None:
        check_function("progress", progress, "a function of the number of photos done and of all photos")
    if tell is not None:
        check_function("tell", tell, "a function of a line")
    photos = labelled_photos(folder)
    if NONE in photos.class_names:
        raise UserError(
            f"{as_path('folder', folder) / NONE} cannot be a class, because {NONE!r} is the answer for photos of no "
            "class; move it elsewhere and give it as others (on the command line: --others DIR)"
        )
    other_photos = [] if others is None else photos_in(others)
    network = find_backbone(backbone if isinstance(backbone, Backbone) else str(backbone))
    if "batch_stats" not in network.variables:  # some photos give statistics, so that each photo is alone later
        some = photos.paths[:: -(-len(photos.paths) // 64)]
        views = each_photo(lambda path: read_views(path, network.preprocessing), some)
        if read := [each for each in views if not isinstance(each, UserError)]:  # else all_features tells
            network = with_statistics(network, np.concatenate(read))
    paths, done = [*photos.paths, *other_photos], iter(range(1, len(photos.paths) + len(other_photos) + 1))
    found = all_features(network, paths, lambda: progress(next(done), len(paths)) if progress else None)
    if found.errors:
        more = f" (and {len(found.errors) - 1} other photos cannot be read)" if len(found.errors) > 1 else ""
        raise UserError(f"{next(iter(found.errors))}{more}")
    own, labels = len(photos.paths), np.array(photos.labels)
    features = found.features[:own]
    pairs = same_in_two_classes(features, labels)
    if pairs and tell:
        one, other = (photos.paths[place] for place in pairs[0])
        tell(f"{one} and {other} are the same photo in two classes ({_pairs(len(pairs))}); remove the wrong one")
    fitted = fit_and_estimate(features, found.histograms[:own], labels, photos.class_names, head, seed)
    like = prototypes(features, labels)
    others_familiarity = familiarity(found.features[own:], like) if other_photos else None
    limit = threshold(fitted.familiarity, others_familiarity)
    digests = frozenset(map(digest_of, photos.paths))
    return Classifier(network, photos.class_names, fitted.head, like, limit, fitted.estimate, digests)


def _pairs(number: int) -> str:
    return "the only such pair" if number == 1 else f"the first of {number} such pairs"


def load(path: PathLike, model: Any = None) -> Classifier:
    """Reads what ``Classifier.save`` wrote. Nothing that the file names is imported.

    Args:
      path: the file.
      model: the backbone's ``flax.linen`` module, if it is not this package's.

    Raises:
      UserError: there is no such file, ``Classifier.save`` did not write it, or it is damaged.
    """
    from cxgrad_jax.photos._saving import load_classifier

    return load_classifier(path, model)
