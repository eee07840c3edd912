"""Trajectories of the public codes of the metric learners, in ``tests/golden`` (float64 figures, no code).

As ``test_golden``: parameters start from the stored ones and run through this package's own outer loop. The codes of
ProtoNet and MatchingNet evaluate with running averages, and so do their learners here, with
``query_statistics="running"``.
"""

import json
import re
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from golden_files import FLOAT64, GOLDEN, compiled, episodes_of, recorder

import cxgrad_jax as cx
from cxgrad_jax.fitting import outer_adam
from cxgrad_jax.learners._metric import mean_by_class, sum_by_class

pytestmark = pytest.mark.usefixtures("double_precision")

matching_net = import_module("cxgrad_jax.learners._matching_net")  # the package's name is the factory

# Of the largest gradient, or of 1 where all are smaller: the rounding of gradients that are zero, those of convolution
# biases before a normalisation.
ZERO = 1e-12

# Official names to paths, one after the other.
NAMES = {
    "protonet": [(r"encoder\.(\d)\.0\.", r"model/block_\1/conv/"), (r"encoder\.(\d)\.1\.", r"model/block_\1/norm/")],
    "matchingnet": [
        (r"feature\.trunk\.(\d)\.C\.", r"model/block_\1/conv/"),
        (r"feature\.trunk\.(\d)\.BN\.", r"model/block_\1/norm/"),
        (r"FCE\.lstmcell\.(\w+)_(\w\w)$", r"context/query/\2/\1"),
        (r"G_encoder\.([a-z]+)_(\w\w)_l0$", r"context/forward/\2/\1"),
        (r"G_encoder\.([a-z]+)_(\w\w)_l0_reverse$", r"context/backward/\2/\1"),
        (r"/ih/", "/input/"),
        (r"/hh/", "/hidden/"),
    ],
    "relationnet": [
        (r"feature_encoder\.layer(\d)", r"model/block_\1"),
        (r"relation_network\.layer(\d)", r"relation/block_\1"),
        (r"block_(\d)", lambda match: f"block_{int(match[1]) - 1}"),
        (r"\.0\.", "/conv/"),
        (r"\.1\.", "/norm/"),
        (r"relation_network\.fc1\.", "relation/hidden/"),
        (r"relation_network\.fc2\.", "relation/score/"),
    ],
}


RUNNING = ("protonet", "matchingnet")


def averages_of(golden, prefix: str, kind: str) -> dict[str, np.ndarray]:
    """The running averages under ``prefix/`` by path."""
    found = {}
    for name in golden.files:
        if name.startswith(f"{prefix}/"):
            module, _, what = name.removeprefix(f"{prefix}/").rpartition(".running_")
            module += "."
            for pattern, replacement in NAMES[kind]:
                module = re.sub(pattern, replacement, module)
            found[f"{module.removeprefix('model/')}{what}"] = golden[name]
    return found


def tensors(golden, prefix: str, kind: str) -> dict[str, np.ndarray]:
    """The arrays under ``prefix/`` in this package's layout, by path."""
    found = {}
    for name in golden.files:
        if not name.startswith(f"{prefix}/"):
            continue
        path, array = name.removeprefix(f"{prefix}/"), golden[name]
        for pattern, replacement in NAMES[kind]:
            path = re.sub(pattern, replacement, path)
        path = re.sub("weight$", "scale" if "/norm/" in path else "kernel", path)
        if path == "relation/hidden/kernel":  # behind maps flattened from (C, H, W)
            channels = golden[f"{prefix}/relation_network.layer2.0.weight"].shape[0]
            side = round((array.shape[1] / channels) ** 0.5)
            array = array.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(array.shape)
        found[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return found


def episode_of(golden, iteration: str) -> cx.Episode:
    keys = (f"{iteration}/{kind}_{what}" for kind in ("support", "query") for what in "xy")
    batch = episodes_of({key: golden[key][None] for key in keys}, iteration, np.float64)
    return jax.tree.map(lambda x: x[0], batch)


def make_learner(kind: str, settings: dict, statistics: str = "query") -> cx.MetaLearner:
    fields = {"num_classes": settings["way"], "features": settings["filters"], "use_bias": True, "negative_slope": 0.0}
    if kind == "protonet":
        return cx.learners.proto_net(cx.models.Conv4(**fields), joint_normalisation=True, query_statistics=statistics)
    if kind == "matchingnet":
        return cx.learners.matching_net(
            cx.models.Conv4(**fields), full_context=True, joint_normalisation=True, query_statistics=statistics
        )
    return cx.learners.relation_net(cx.models.RelationConv4(**fields), hidden=settings["hidden"])


def record_features(record, golden, iteration: str, kind: str, settings: dict, params, task, episode) -> None:
    """Compares what lies between the images and the logits."""
    fields = {"features": settings["filters"], "use_bias": True, "negative_slope": 0.0}
    network = {"relationnet": cx.models.RelationConv4}.get(kind, cx.models.Conv4)(settings["way"], **fields)

    def maps_of(images):
        return jnp.asarray(network.apply({"params": params["model"]}, images, method="feature_maps"))

    if kind == "relationnet":
        record("features", task.episode.mean(axis=(1, 2)), golden[f"{iteration}/class_feature_spatial_mean"])
        record(
            "features",
            maps_of(episode.query_images).mean(axis=(1, 2)),
            golden[f"{iteration}/query_feature_spatial_mean"],
        )
        return
    images = np.concatenate([episode.support_images, episode.query_images])
    features = maps_of(images).transpose(0, 3, 1, 2).reshape(len(images), -1)
    support, query = jnp.split(features, [len(episode.support_labels)])
    if kind == "protonet":
        record("features", features, golden[f"{iteration}/embeddings"])
        labels, way = episode.support_labels, settings["way"]
        record("features", mean_by_class(support, labels, way), golden[f"{iteration}/prototypes"])
        first = support[labels == labels[0]].sum(axis=0)
        np.testing.assert_allclose(sum_by_class(support, labels, way)[labels[0]], first)
        return
    record("features", support, golden[f"{iteration}/support_features"])
    record("features", query, golden[f"{iteration}/query_features"])
    record("context", matching_net.support_context(params["context"], support), golden[f"{iteration}/G"])
    ours = matching_net.query_context(params["context"], query, golden[f"{iteration}/G"])
    record("context", ours, golden[f"{iteration}/F"])


@pytest.mark.parametrize("kind", NAMES)
def test_float64_agrees_with_the_public_code(kind):
    golden, found = np.load(GOLDEN / f"{kind}.npz"), {}
    settings, record = json.loads(str(golden["meta"])), recorder(found)
    learner, iterations = make_learner(kind, settings), range(settings["iterations"])
    params: Any = unflatten_dict(tensors(golden, "param", kind), sep="/")
    optimiser = compiled(outer_adam(settings["outer"]["lr"]))
    opt_state = optimiser.init(params)

    def loss_and_logits(params, episode):
        task = learner.adapt(params, episode.support_images, episode.support_labels)
        return learner.loss(params, episode, iteration=0)[0], (
            learner.predict(params, task, episode.query_images),
            task,
        )

    def record_query(prefix, loss, logits):
        record("loss", loss, golden[f"{prefix}/loss"])
        if kind == "matchingnet":
            record("logits", logits, golden[f"{prefix}/query_logprobs"])
        else:
            logits = jax.nn.sigmoid(logits) if kind == "relationnet" else logits
            record("logits", logits, golden[f"{prefix}/query_logits"])

    def zero(path):
        return re.search(r"block_\d/conv/bias", path)

    evaluate = jax.jit(jax.value_and_grad(loss_and_logits, has_aux=True))
    for iteration in (f"iter{i}" for i in iterations):
        episode = episode_of(golden, iteration)
        (loss, (logits, task)), gradient = evaluate(params, episode)
        record_query(iteration, loss, logits)
        record_features(record, golden, iteration, kind, settings, params, task, episode)
        expected = tensors(golden, f"{iteration}/grad", kind)
        rounding = ZERO * max(1, *(np.max(np.abs(array)) for array in expected.values()))
        for path, ours in flatten_dict(gradient, sep="/").items():
            if zero(path):
                assert np.max(np.abs(ours - expected[path])) < rounding
            else:
                record("gradient", ours, expected[path])
        if kind == "relationnet":  # clipped network by network
            gradient = {name: clipped(gradient[name], 0.5) for name in gradient}
            expected = tensors(golden, f"{iteration}/grad_clipped", kind)
            for path, ours in flatten_dict(gradient, sep="/").items():
                if not zero(path):
                    record("clipped gradient", ours, expected[path])
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        expected = tensors(golden, f"{iteration}/param_after", kind)
        assert flatten_dict(params, sep="/").keys() == expected.keys()
        # Adam divides by the gradient's size + 1e-8, and so moves by the rounding of a zero.
        moved = len(iterations) * settings["outer"]["lr"] * rounding / 1e-8
        for path, ours in flatten_dict(params, sep="/").items():
            if zero(path):
                assert np.max(np.abs(ours - expected[path])) < moved
            else:
                record("parameter", ours, expected[path])

    if kind != "matchingnet":  # whose code evaluates with running averages only
        (loss, (logits, _)), _ = evaluate(params, episode_of(golden, "eval"))
        record_query("eval_batchstats" if kind == "protonet" else "eval", loss, logits)
    print(kind, found)
    assert max(found.values()) < FLOAT64, found


@pytest.mark.parametrize("kind", RUNNING)
def test_golden_running_averages_and_the_evaluation_by_them(kind):
    golden, found = np.load(GOLDEN / f"{kind}.npz"), {}
    settings, record = json.loads(str(golden["meta"])), recorder(found)
    learner = make_learner(kind, settings, "running")
    optimiser = compiled(cx.learners.with_running_averages(outer_adam(settings["outer"]["lr"])))
    params: Any = unflatten_dict(tensors(golden, "param", kind), sep="/")
    fresh = learner.init(jax.random.key(0), episode_of(golden, "iter0").support_images)
    assert fresh.keys() == {*params, "statistics"}
    params["statistics"] = fresh["statistics"]
    opt_state = optimiser.init(params)
    evaluate = jax.jit(jax.value_and_grad(lambda params, episode: learner.loss(params, episode)[0]))
    for iteration in (f"iter{i}" for i in range(settings["iterations"])):
        loss, gradient = evaluate(params, episode_of(golden, iteration))
        record("loss", loss, golden[f"{iteration}/loss"])
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        # Adam moves convolution biases by the rounding of their zero gradients, and the means behind them.
        stored = unflatten_dict(tensors(golden, f"{iteration}/param_after", kind), sep="/")
        params = {**stored, "statistics": params["statistics"]}
        averages = flatten_dict(params["statistics"]["model"], sep="/")
        expected = averages_of(golden, f"{iteration}/buffer_after", kind)
        assert averages.keys() == expected.keys()
        for path, ours in averages.items():
            record("running average", ours, expected[path])
    episode = episode_of(golden, "eval")
    adapted = jax.jit(learner.adapt)(params, episode.support_images, episode.support_labels)
    logits = jax.jit(learner.predict)(params, adapted, episode.query_images)
    record("logits", logits, golden["eval/query_logprobs" if kind == "matchingnet" else "eval/query_logits"])
    print(kind, found)
    assert max(found.values()) < FLOAT64, found


def clipped(gradient, norm: float):
    factor = min(1, norm / (float(optax.tree.norm(gradient)) + 1e-6))
    return jax.tree.map(lambda g: g * factor, gradient)
