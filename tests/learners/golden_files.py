"""What the golden tests share: names, layouts, episodes and comparisons.

The official networks name their modules as they like. ``NAMES`` turns each name into this package's path, one pattern
after the other. Every size, step count and rate is read from the file.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_in_training
from cxgrad_jax.learners._labels import merge

GOLDEN = Path(__file__).parents[1] / "golden"
FLOAT64 = 1e-9  # of each tensor's maximum; 4e-11 is reached, by the context and what it feeds
# Of the largest gradient: the rounding of gradients that are zero by construction.
ZERO = 1e-12

RESNET12 = [
    (r"^(?:encoder\.)?layer(\d)(\.0)?\.", lambda match: f"model/block_{int(match[1]) - 1}/"),
    (r"/conv(\d)\.", lambda match: f"/conv_{int(match[1]) - 1}/"),
    (r"/bn(\d)\.", lambda match: f"/norm_{int(match[1]) - 1}/"),
    (r"/downsample\.0\.", "/shortcut_conv/"),
    (r"/downsample\.1\.", "/shortcut_norm/"),
]
NAMES = {
    "r2d2": [
        (r"encoder\.features(\d)\.", lambda match: f"model/block_{int(match[1]) - 1}/"),
        (r"/0\.", "/conv/"),
        (r"/1\.", "/norm/"),
        (r"^adjust\.scale$", "scale"),
        (r"^adjust\.bias$", "shift"),
        (r"^lambda\w*\.l$", "regularisation"),
    ],
    "metaoptnet": [
        (r"embedding\.encoder\.(\d)\.block\.", r"model/block_\1/"),
        (r"/0\.", "/conv/"),
        (r"/1\.", "/norm/"),
        (r"^head\.scale$", "scale"),
    ],
    "baseline": [*RESNET12, (r"^classifier\.linear\.", "model/head/"), (r"^temp$", "scale")],
    "unicorn": [*RESNET12, (r"^fcone\.", "model/head/"), (r"^fc\.", "model/head/")],
}  # fmt: skip
SCALARS = ("scale", "shift", "regularisation")


def load(name: str) -> tuple[dict[str, Any], dict]:
    """The arrays of a file, and its settings."""
    golden = dict(np.load(GOLDEN / f"{name}.npz"))
    return golden, json.loads(str(golden["meta"]))


def tensors(golden: dict, prefix: str, names: str) -> dict[str, Any]:
    """The parameters under ``prefix/`` in this package's layout, by path."""
    found = {}
    for name, array in golden.items():
        if not name.startswith(f"{prefix}/"):
            continue
        path = renamed(name.removeprefix(f"{prefix}/"), names)
        path = re.sub("weight$", "scale" if "norm" in path else "kernel", path)
        array = array.reshape(()) if path in SCALARS else array
        found[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return found


def averages(golden: dict, prefix: str, names: str) -> dict:
    """The running averages under ``prefix/`` as flax's collection ``"batch_stats"`` of the model."""
    found = {}
    for name, array in golden.items():
        if match := re.fullmatch(rf"{prefix}/(.*\.)running_(mean|var)", name):
            found[renamed(match[1], names).removeprefix("model/") + match[2]] = array
    return merge(found)


def averages_moved_by(model: nn.Module) -> Callable:
    """A compiled ``(model's parameters, averages, images) -> features, averages after a training pass``."""
    return jax.jit(
        lambda params, statistics, images: apply_in_training(model, params, images, "embed", statistics=statistics)
    )


def renamed(name: str, names: str) -> str:
    for pattern, replacement in NAMES[names]:
        name = re.sub(pattern, replacement, name)
    return name


def outer_optimiser(settings: dict) -> optax.GradientTransformation:
    """The optimiser of the file: Adam, or SGD with momentum and weight decay as PyTorch has it."""
    outer = settings["outer"]
    if outer["optimiser"] == "Adam":
        return compiled(optax.adam(outer["lr"]))
    momentum = optax.trace(outer["momentum"], nesterov=outer["nesterov"])
    decay, rate = optax.add_decayed_weights(outer["weight_decay"]), optax.scale(-outer["lr"])
    return compiled(optax.chain(decay, momentum, rate))


def episodes_of(golden, iteration: str, dtype, as_many_as: str | None = None) -> cx.Episode:
    """The tasks of an iteration, repeated up to the number of those of another: so as not to compile again."""
    tasks = np.arange(len(golden[f"{as_many_as or iteration}/support_x"])) % len(golden[f"{iteration}/support_x"])

    def images(kind):
        x = golden[f"{iteration}/{kind}_x"][tasks]
        _, way, shot, *chw = x.shape
        return (x.reshape(-1, way * shot, *chw).transpose(0, 1, 3, 4, 2) / 255.0).astype(dtype)

    def labels(kind):
        return golden[f"{iteration}/{kind}_y"][tasks].reshape(len(tasks), -1)

    return cx.Episode(images("support"), labels("support"), images("query"), labels("query"))


def first_tasks(outcome, golden, iteration: str):
    """What belongs to the iteration's own tasks: see ``episodes_of``."""
    tasks = len(golden[f"{iteration}/support_x"])
    return jax.tree.map(lambda x: x[:tasks], outcome)


def compiled(optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same, as one program instead of one for each operation and shape."""
    return optax.GradientTransformation(jax.jit(optimiser.init), jax.jit(optimiser.update))


def recorder(found: dict[str, float]):
    """``(quantity, ours, expected)`` that keeps the largest deviation by quantity, relative to a tensor's maximum."""

    def record(quantity, ours, expected):
        error = np.max(np.abs(np.asarray(ours) - expected)) / max(np.max(np.abs(expected)), 1e-30)
        found[quantity] = max(found.get(quantity, 0.0), float(error))

    return record


def outer_step(learner: cx.MetaLearner, reduce=jnp.mean):
    """``(params, episodes, iteration=None) -> ((losses [tasks], adapted, logits), gradient)`` of a batch of episodes.

    What is compared beside the gradient is a program of its own, which is not differentiated, and tasks run one after
    the other, which is how a CPU is fastest.
    """

    @jax.jit
    def outcome(params, episodes):
        def of_task(episode):
            adapted = learner.adapt(params, episode.support_images, episode.support_labels)
            return adapted, learner.predict(params, adapted, episode.query_images)

        return jax.lax.map(of_task, episodes)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, episodes, iteration):
        losses = jax.lax.map(lambda episode: learner.loss(params, episode, iteration=iteration)[0], episodes)
        return reduce(losses), losses

    def step(params, episodes, iteration=None):
        of_params, losses = gradient(params, episodes, iteration)
        return (losses, *outcome(params, episodes)), of_params

    return step


def one_episode(golden, prefix: str) -> cx.Episode:
    """The episode of a file whose tasks have no axis."""
    keys = (f"{prefix}/{kind}_{what}" for kind in ("support", "query") for what in "xy")
    return jax.tree.map(lambda x: x[0], episodes_of({key: golden[key][None] for key in keys}, prefix, np.float64))


def backbone(settings, num_classes):
    return cx.models.ResNet12(num_classes, tuple(settings["channels"]), "every_block", negative_slope=0.1)


def images_of(array):
    return array.reshape(-1, *array.shape[-3:]).transpose(0, 2, 3, 1) / 255.0


class Comparison:
    """Keeps the largest deviation of each quantity, relative to each tensor's maximum."""

    def __init__(self):
        self.found, self.zeros, self.rounding = {}, set(), 0.0
        self.record = recorder(self.found)

    def gradients(self, ours: dict, theirs: dict) -> None:
        """Compares gradients by path. Where theirs are rounding, ours must be too."""
        assert ours.keys() == theirs.keys()
        self.rounding = ZERO * max(np.max(np.abs(array)) for array in theirs.values())
        for path, array in theirs.items():
            if np.max(np.abs(array)) < self.rounding:
                self.zeros.add(path)
                assert np.max(np.abs(ours[path])) < self.rounding, path
            else:
                self.record("gradient", ours[path], array)

    def parameters(self, ours: dict, theirs: dict, rate: float) -> dict:
        """Compares parameters after a step, and returns ours to go on with.

        Where a gradient is rounding, Adam follows it, dividing by its size + 1e-8. There theirs are returned.
        """
        assert ours.keys() == theirs.keys()
        for path, array in theirs.items():
            if path in self.zeros:
                assert np.max(np.abs(ours[path] - array)) < 2 * rate * self.rounding / 1e-8, path
            else:
                self.record("parameter", ours[path], array)
        return merge({path: theirs[path] if path in self.zeros else array for path, array in ours.items()})

    def verdict(self, name: str, tolerance: float = FLOAT64, **others: float) -> None:
        """All quantities agree, those of ``others`` within a tolerance of their own."""
        print(name, self.found)
        assert all(error < others.get(quantity, tolerance) for quantity, error in self.found.items()), self.found
