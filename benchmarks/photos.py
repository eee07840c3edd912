"""A few labelled photos a class: how right each head is, how honest its estimate, and how well it knows strangers.

    python -m benchmarks.photos FOLDER --features FILE.npz --out FILE.json --picture FILE.png

``FOLDER`` holds ``train/CLASS/*.jpg`` to learn from and ``test/CLASS/*.jpg`` to be judged on. A draw takes 1, 2, 5, 10
and 20 photos of each class at random; all heads learn from the same draw. Features of every photo are computed once and
kept in ``--features``.

Printed are, of each backbone: the accuracy on all test photos, mean and standard error over the draws; what several
views and the maxima of the feature maps bring; the accuracy that ``cx.photos.fit`` promises with its interval, and in
how many draws the received one lay inside; the AUROC of "none of these" where three random classes are left out.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.interleaved import machine
from cxgrad_jax import photos
from cxgrad_jax.photos._backbones import NAMES, features_of, find_backbone
from cxgrad_jax.photos._estimate import fit_and_estimate
from cxgrad_jax.photos._familiarity import auroc, familiarity, prototypes, unit
from cxgrad_jax.photos._features import colour_histogram
from cxgrad_jax.photos._heads import STRENGTHS, fit_head
from cxgrad_jax.photos._preprocessing import read_views

SHOTS = (1, 2, 5, 10, 20)
VIEWS = {"middle": (0,), "middle and mirrored": (0, 2), "middle and whole": (0, 1)}
LEFT_OUT = 3  # classes, for the AUROC


class Photos(NamedTuple):
    """Photos of one folder.

    Attributes:
      views: by backbone, float32 ``[N, views, D]``, of length 1: the middle, the whole, the middle mirrored.
      histograms: float32 ``[N, bins]``.
      labels: ``[N]``.
    """

    views: dict[str, np.ndarray]
    histograms: np.ndarray
    labels: np.ndarray

    def features(self, backbone: str, views: tuple[int, ...] = (0,), maxima: bool = True) -> np.ndarray:
        """``[N, D]`` of length 1, the mean over ``views``; without ``maxima`` only the means over positions.

        ``"a + b"`` is the features of two backbones side by side.
        """
        if " + " in backbone:
            return unit(np.concatenate([self.features(each, views, maxima) for each in backbone.split(" + ")], axis=1))
        chosen = self.views[backbone][:, list(views)]
        if not maxima:
            chosen = unit(chosen[..., : chosen.shape[-1] // 2])
        return unit(chosen.sum(axis=1))


def compute(folder: Path, backbones: list[str]) -> Photos:
    """Features of all photos in ``folder/CLASS``."""
    found, views, histograms = photos.labelled_photos(folder), {}, []
    for name in backbones:
        network = find_backbone(name)
        network = network._replace(preprocessing=network.preprocessing._replace(views=("middle", "whole")))
        rows = []
        for path in tqdm(found.paths, desc=f"{folder.name}, {name}", disable=None):
            pixels = read_views(path, network.preprocessing)
            three = np.concatenate([pixels, pixels[:1, :, ::-1]])
            rows.append(np.stack([features_of(network, view[None]) for view in three]))  # each view alone
            if name == backbones[0]:
                histograms.append(colour_histogram(pixels[0]))
        views[name] = np.stack(rows)
    return Photos(views, np.stack(histograms), np.array(found.labels))


def load_or_compute(folder: Path, backbones: list[str], kept: Path) -> tuple[Photos, Photos, tuple[str, ...]]:
    """Features of ``train`` and ``test``, from the file ``kept`` where it has them."""
    if not kept.exists():
        arrays = {}
        for split in ("train", "test"):
            part = compute(folder / split, backbones)
            arrays |= {f"{split}/{name}": rows for name, rows in part.views.items()}
            arrays |= {f"{split}/histograms": part.histograms, f"{split}/labels": part.labels}
        np.savez(kept, **arrays)
    arrays = np.load(kept)
    train, test = (
        Photos(
            {name: arrays[f"{split}/{name}"] for name in backbones}, arrays[f"{split}/histograms"],
            arrays[f"{split}/labels"],
        )
        for split in ("train", "test")
    )  # fmt: skip
    return train, test, photos.labelled_photos(folder / "train").class_names


def draw_of(labels: np.ndarray, shot: int, draw: int) -> np.ndarray:
    """Numbers of ``shot`` photos of each class."""
    rng = np.random.default_rng((draw, shot))
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:shot] for c in range(labels.max() + 1)])


def accuracies(train: Photos, test: Photos, chosen: np.ndarray, sets: dict[str, tuple]) -> dict[str, float]:
    """The accuracy of every head on every set of features, of one draw."""
    labels, number = train.labels[chosen], int(train.labels.max()) + 1
    result = {"chance": 1 / number}
    head = fit_head("logistic", 10.0, train.histograms[chosen], labels, number)
    result["colour histogram"] = float((head.logits(test.histograms).argmax(1) == test.labels).mean())
    for name, arguments in sets.items():
        seen, unseen = train.features(*arguments)[chosen], test.features(*arguments)
        strengths = STRENGTHS if name.endswith(", middle") else (10.0,)
        for kind, strength in (("centroid", 0.0), *(("logistic", strength) for strength in strengths)):
            head = fit_head(kind, strength, seen, labels, number)
            text = kind if kind == "centroid" else f"logistic, C = {strength:g}"
            result[f"{name}, {text}"] = float((head.logits(unseen).argmax(1) == test.labels).mean())
    return result


def left_out(train: Photos, test: Photos, chosen: np.ndarray, backbone: str, draw: int) -> dict[str, float]:
    """The AUROC of several scores, three classes left out of one draw."""
    number = int(train.labels.max()) + 1
    strangers = np.random.default_rng(draw).permutation(number)[:LEFT_OUT]
    kept = chosen[~np.isin(train.labels[chosen], strangers)]
    labels = np.unique(train.labels[kept], return_inverse=True)[1]
    seen, unseen = train.features(backbone)[kept], test.features(backbone)
    head = fit_head("logistic", 10.0, seen, labels, number - LEFT_OUT)
    centroids = unit(np.stack([seen[labels == label].mean(0) for label in range(number - LEFT_OUT)]))
    scores = {
        "familiarity": familiarity(unseen, prototypes(seen, labels)),
        "nearest photo": (unseen @ seen.T).max(1),
        "nearest centroid": (unseen @ centroids.T).max(1),
        "the head's probability": head.probabilities(unseen).max(1),
    }
    known = ~np.isin(test.labels, strangers)
    return {name: auroc(score[known], score[~known]) for name, score in scores.items()}


def promised(train: Photos, test: Photos, chosen: np.ndarray, backbone: str, names: tuple[str, ...], draw: int) -> dict:
    """What the automatic choice promises and what comes, of one draw."""
    labels = train.labels[chosen]
    fitted = fit_and_estimate(train.features(backbone)[chosen], train.histograms[chosen], labels, names, "auto", draw)
    unseen = fitted.head.probabilities(test.features(backbone))
    received = float((unseen.argmax(1) == test.labels).mean())
    told, (low, high) = fitted.estimate.accuracy, fitted.estimate.interval or (0.0, 1.0)
    return {
        "head": fitted.head.kind, "promised": told, "low": low, "high": high, "received": received,
        "inside": None if told is None else bool(low <= received <= high),
        "confidence": float(unseen.max(1).mean()), "auroc": fitted.estimate.auroc,
    }  # fmt: skip


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error, in per cent."""
    return 100 * float(np.mean(values)), 100 * float(np.std(values, ddof=1) / len(values) ** 0.5)


def picture(path: Path, table: dict[str, dict[int, tuple[float, float]]], rows: list[str]) -> None:
    """Accuracy against the number of photos a class."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for (name, row), marker in zip(((name, table[name]) for name in rows), "osD^v", strict=False):
        means, errors = zip(*(row[shot] for shot in SHOTS), strict=True)
        axis.errorbar(SHOTS, means, errors, marker=marker, capsize=3, label=name)
    axis.set(xscale="log", xlabel="photos a class", ylabel="accuracy on new photos, %", ylim=(0, 100))
    axis.set_xticks(SHOTS, [str(shot) for shot in SHOTS])
    axis.minorticks_off()
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.18))
    figure.savefig(path, dpi=150)


def main(flags: list[str]) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="photos", description="Accuracy, estimates and strangers on a few photos.")
    parser.add_argument("folder", type=Path, help="with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "efficientnet_lite2"])
    parser.add_argument("--features", type=Path, required=True, help="npz file that keeps the features")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--picture", type=Path, help="PNG file")
    given = parser.parse_args(flags)
    train, test, names = load_or_compute(given.folder, given.backbones, given.features)
    first = given.backbones[0]
    sets: dict[str, tuple] = {f"{first}, means only": (first, (0,), False)} if first in NAMES else {}
    for name in given.backbones:
        sets |= {f"{name}, {views}": (name, numbers) for views, numbers in VIEWS.items()}
    if len(given.backbones) > 1:
        both = f"{first} + {given.backbones[-1]}"
        sets[f"{both}, middle and whole"] = (both, VIEWS["middle and whole"])

    right: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    strangers: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    promises: dict[int, list[dict]] = defaultdict(list)
    for draw in tqdm(range(given.draws), disable=None):
        for shot in SHOTS:
            chosen = draw_of(train.labels, shot, draw)
            for name, value in accuracies(train, test, chosen, sets).items():
                right[name][shot].append(value)
            for name, value in left_out(train, test, chosen, first, draw).items():
                strangers[name][shot].append(value)
            promises[shot].append(promised(train, test, chosen, first, names, draw))
    for shot in SHOTS:
        right[f"{first}, middle, chosen"][shot] = [each["received"] for each in promises[shot]]

    table = {name: {shot: mean_and_error(values) for shot, values in row.items()} for name, row in right.items()}
    print(f"accuracy, %, mean of {given.draws} draws ± standard error")
    print(f"| {'photos a class':50} | " + " | ".join(f"{shot:>10}" for shot in SHOTS) + " |")
    for name, row in table.items():
        print(f"| {name:50} | " + " | ".join(f"{row[s][0]:5.1f} ± {row[s][1]:.1f}" for s in SHOTS) + " |")
    print(f"\nAUROC of none of these, {LEFT_OUT} classes left out, {first}")
    for name, row in strangers.items():
        print(f"| {name:50} | " + " | ".join(f"{np.mean(row[shot]):10.3f}" for shot in SHOTS) + " |")
    print(f"\npromised and received accuracy, {first}, %")
    for shot in SHOTS[1:]:
        rows = promises[shot]
        inside = sum(each["inside"] for each in rows)
        told, came, sure = (
            100 * np.mean([each[key] for each in rows]) for key in ("promised", "received", "confidence")
        )
        kinds = sum(each["head"] == "logistic" for each in rows)
        print(
            f"{shot:>3}: promised {told:.1f}, received {came:.1f}, inside the interval in {inside} of {len(rows)} draws"
        )
        print(f"     mean probability {sure:.1f}; logistic regression chosen in {kinds} draws")
    if given.out:
        content = {
            "machine": machine(), "command": f"python -m benchmarks.photos {' '.join(flags)}", "accuracy": right,
            "auroc": strangers, "promises": promises,
        }  # fmt: skip
        given.out.write_text(json.dumps(content, indent=1) + "\n")
    if given.picture:
        heads = (f"{given.backbones[-1]}, middle and whole, logistic, C = 10", f"{first}, middle, logistic, C = 10")
        picture(given.picture, table, [*heads, f"{first}, middle, centroid", "colour histogram", "chance"])


if __name__ == "__main__":
    main(sys.argv[1:])
