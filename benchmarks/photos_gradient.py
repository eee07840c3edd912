"""Do gradient-based learners beat logistic regression on the same features?

    python -m benchmarks.photos_gradient FOLDER META --features FILE.npz --meta_features FILE.npz --out FILE.json

A network of one hidden layer on the frozen features of EfficientNet-Lite0 is meta-trained by MAML, ANIL and CxGrad on
episodes of the classes in ``META/CLASS/*`` (photographs of other things) and then adapted to each draw of
``benchmarks.photos`` of ``FOLDER``, with as many photos a class as it was meta-trained for. Logistic regression and the
centroid learn from the same draws.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax

import cxgrad_jax as cx
from benchmarks.interleaved import machine
from benchmarks.photos import draw_of, load_or_compute, mean_and_error
from cxgrad_jax.photos._backbones import find_backbone
from cxgrad_jax.photos._heads import fit_head

BACKBONE, QUERY = "efficientnet_lite0", 5


class Features(nn.Module):
    """Features in place of images, ``[N, 16, 16, D / 256]``, to logits, by one hidden layer."""

    num_classes: int
    hidden: int = 128

    def setup(self):
        self.body, self.head = nn.Dense(self.hidden), nn.Dense(self.num_classes)

    def __call__(self, x):
        return self.head(self.embed(x))

    def embed(self, x):
        """What the head sees."""
        return nn.relu(self.body(x.reshape(len(x), -1)))


def as_images(features: np.ndarray) -> np.ndarray:
    """Features ``[N, D]`` in a shape that passes for images."""
    return features.reshape(len(features), 16, 16, -1)


def scaled_body(path: str, leaf: jax.Array) -> str:
    """CxGrad scales the gradients of the hidden layer's kernel."""
    return "scaled" if path == "body/kernel" else "adapted"


def learners(way: int, rate: float) -> dict[str, cx.MetaLearner]:
    """The learners that are compared."""
    model, steps = Features(way), {"inner_lr": rate, "num_steps": 5}
    return {
        "MAML": cx.learners.maml(model, **steps),
        "ANIL": cx.learners.anil(model, **steps),
        "CxGrad": cx.learners.cxgrad(model, param_labels=scaled_body, **steps),
    }


def meta_train(learner: cx.MetaLearner, store: cx.data.ImageStore, way: int, shot: int, iterations: int):
    """Meta-parameters and the mean accuracy on further episodes of the same classes."""
    sampler = cx.sampler(store, way=way, shot=shot, query=QUERY, seed=0)
    params = cx.fit(learner, sampler, optax.adam(1e-3), iterations=iterations, tasks=4, progress=False)
    return params, cx.evaluate(learner, params, cx.sampler(store, way=way, shot=shot, query=QUERY, seed=1), episodes=40)


def main(flags: list[str]) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="photos_gradient", description="Gradient-based heads on the same features.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("meta", type=Path, help="folder with a folder of photos for each class to meta-train on")
    parser.add_argument("--features", type=Path, required=True, help="that benchmarks.photos keeps")
    parser.add_argument("--meta_features", type=Path, required=True, help="npz file that keeps those of META")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.1, 0.5, 2.0],
        help="of the inner loop; the best on episodes of META is taken",
    )  # fmt: skip
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args(flags)
    if not given.meta_features.exists():
        found = cx.photos.labelled_photos(given.meta)
        rows = cx.photos.all_features(find_backbone(BACKBONE), found.paths)
        np.savez(given.meta_features, features=rows.features, labels=np.array(found.labels))
    kept = np.load(given.meta_features)
    sizes = np.bincount(kept["labels"])
    store = cx.data.ImageStore(
        as_images(kept["features"]), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        tuple(map(str, range(len(sizes)))), "meta", "train",
    )  # fmt: skip
    train, test, names = load_or_compute(given.folder, [BACKBONE], given.features)
    seen, unseen, way = train.features(BACKBONE), test.features(BACKBONE), len(names)

    right: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for shot in given.shots:
        trained = {}
        for name in learners(way, given.rates[0]):
            tried = {}
            for rate in given.rates:
                learner = learners(way, rate)[name]
                try:
                    tried[rate] = (learner, *meta_train(learner, store, way, shot, given.iterations))
                except cx.UserError as error:  # the loss is not finite
                    print(f"{name}, {shot} photos, rate {rate}: {error}")
            rate = max(tried, key=lambda rate: tried[rate][2].accuracy)
            trained[name] = tried[rate]
            print(f"{name}, {shot} photos: rate {rate}, {100 * tried[rate][2].accuracy:.1f} % on META", flush=True)
        apply = {
            name: jax.jit(lambda p, x, y, q, learner=learner: learner.predict(p, learner.adapt(p, x, y), q))
            for name, (learner, _, _) in trained.items()
        }
        for draw in range(given.draws):
            chosen = draw_of(train.labels, shot, draw)
            x, y = seen[chosen], train.labels[chosen]
            for kind, strength in (("centroid", 0.0), ("logistic", 1.0), ("logistic", 10.0)):
                head = fit_head(kind, strength, x, y, way)
                name = f"{kind}, C = {strength:g}" if strength else kind
                right[name][shot].append(float((head.logits(unseen).argmax(1) == test.labels).mean()))
            for name, (_, params, _) in trained.items():
                logits = apply[name](params, as_images(x), y, as_images(unseen))
                right[name][shot].append(float((np.asarray(logits).argmax(1) == test.labels).mean()))
    print(f"accuracy, %, mean of {given.draws} draws ± standard error, {given.shots} photos a class")
    for name, row in right.items():
        print(
            f"| {name:18} | "
            + " | ".join("{:5.1f} ± {:.1f}".format(*mean_and_error(row[s])) for s in given.shots)
            + " |"
        )
    if given.out:
        content = {"machine": machine(), "command": f"python -m benchmarks.photos_gradient {' '.join(flags)}"}
        given.out.write_text(json.dumps({**content, "accuracy": right}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
