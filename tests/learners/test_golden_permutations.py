"""UNICORN-MAML's check of MAML over all orders of the classes, against its public code (``maml_permutation.npz``).

Its MAML adapts every parameter of its ResNet-12, normalises the support set by itself in the inner steps, which move
the running averages, and the query set by these averages.
"""

import json
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from golden_files import FLOAT64, GOLDEN, recorder

import cxgrad_jax as cx
from cxgrad_jax.analysis import permutations, permuted_logits
from cxgrad_jax.learners import Adapted, accuracy, apply_in_training, apply_model, cross_entropy
from cxgrad_jax.models._pooling import max_pool

pytestmark = pytest.mark.usefixtures("double_precision")

NAMES = [
    (r"^encoder\.layer(\d)\.0\.", lambda match: f"block_{int(match[1]) - 1}/"),
    (r"/conv(\d)\.", lambda match: f"/conv_{int(match[1]) - 1}/"),
    (r"/bn(\d)\.", lambda match: f"/norm_{int(match[1]) - 1}/"),
    (r"/downsample\.0\.", "/shortcut_conv/"),
    (r"/downsample\.1\.", "/shortcut_norm/"),
    (r"^encoder\.fc\.", "head/"),
    (r"running_", ""),
]


class UnicornResNet(cx.models.ResNet12):
    """Its ResNet-12: slope 0.1 inside a block, ReLU behind the addition, pooling in every block."""

    def feature_maps(self, x, film=None):
        for block in self.block:
            x = nn.relu(max_pool(block(x)))
        return x


def tensors(golden, prefix: str) -> dict[str, Any]:
    """The arrays under ``prefix/`` in this package's layout, nested."""
    found = {}
    for name in golden.files:
        if name.startswith(f"{prefix}/"):
            path, array = name.removeprefix(f"{prefix}/"), golden[name]
            for pattern, replacement in NAMES:
                path = re.sub(pattern, replacement, path)
            path = re.sub("weight$", "scale" if "norm" in path else "kernel", path)
            found[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return unflatten_dict(found, sep="/")


def unicorns_maml(model: nn.Module, inner_lr: float, num_steps: int) -> cx.MetaLearner:
    def adapt(params, support_images, support_labels):
        theta, averages = params["model"], params["statistics"]["model"]

        def loss(theta, averages):
            logits, averages = apply_in_training(model, theta, support_images, statistics=averages)
            return cross_entropy(logits, support_labels), averages

        for _ in range(num_steps):
            gradients, averages = jax.grad(loss, has_aux=True)(theta, averages)
            theta = jax.tree.map(lambda p, g: p - inner_lr * g, theta, gradients)
        return Adapted(theta, {}, averages)

    def predict(params, adapted, query_images):
        return apply_model(model, adapted.model, query_images, statistics=adapted.statistics)

    return cx.MetaLearner(None, adapt, predict, None)  # pyright: ignore[reportArgumentType]


def test_golden_logits_of_every_order():
    golden, found = np.load(GOLDEN / "maml_permutation.npz"), {}
    settings, record = json.loads(str(golden["meta"])), recorder(found)
    way = settings["way"]
    model = UnicornResNet(way, tuple(settings["channels"]), pooling="every_block", negative_slope=0.1)
    learner = unicorns_maml(model, settings["inner_lr"], settings["inner_steps"])
    params = {"model": tensors(golden, "param"), "statistics": {"model": tensors(golden, "buffer")}}

    def images_of(kind):
        images = golden[f"{kind}_x"]
        return images.reshape(-1, *images.shape[2:]).transpose(0, 2, 3, 1) / 255.0

    labels = (golden["support_y"].reshape(-1), golden["query_y"].reshape(-1))
    episode = cx.Episode(images_of("support"), jnp.asarray(labels[0]), images_of("query"), jnp.asarray(labels[1]))
    orders = permutations(way)
    np.testing.assert_array_equal(orders, golden["permutations"])
    # The support set is predicted, too. Each image is predicted alone, so one batch may have both.
    both = episode._replace(query_images=np.concatenate([episode.query_images, episode.support_images]))
    logits = np.asarray(jax.jit(lambda p, e: permuted_logits(learner, p, e, way))(params, both))
    of_query, of_support = np.split(logits, [len(episode.query_labels)], axis=1)
    for p, order in enumerate(orders):  # their rows and columns go by the new labels
        for name, ours in (("query", of_query), ("support", of_support)):
            by_class = ours[p].reshape(way, -1, way)
            record(name, by_class[order][..., order].reshape(-1, way), golden[f"{name}_logits"][p])
        assert float(accuracy(of_query[p], episode.query_labels)) == golden["accuracy"][p]
    print(found)
    assert max(found.values()) < FLOAT64, found
    assert len(set(golden["accuracy"])) > 1  # orders do differ
