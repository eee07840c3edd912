"""Trajectories of the public codes of the gradient-based baselines, in ``tests/golden`` (float64 figures, no code).

As ``test_golden``: parameters start from the stored ones and run through this package's own outer loop. Meta-SGD and
ANIL have no code of their authors (see their modules).
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_files import FLOAT64, GOLDEN, compiled, episodes_of, first_tasks, outer_step, recorder

import cxgrad_jax as cx
from cxgrad_jax.fitting import outer_adam
from cxgrad_jax.learners._labels import by_path, merge
from cxgrad_jax.learners._maml_plus_plus import step_weights
from cxgrad_jax.learners._modgrad import mask

pytestmark = pytest.mark.usefixtures("double_precision")

EPOCH = 500  # iterations

# Of the largest gradient: the rounding of gradients that are zero by construction, those of convolution biases before a
# normalisation and of what only they feed.
ZERO = 1e-12

# The decay of ALFA's first convolution bias has, in one step, a gradient of 1e-8 of the largest. Adam divides by it.
PARAMETER = {"alfa": 3e-9}

LEARNERS = {
    "alfa": lambda model, settings, _: cx.learners.alfa(model, num_steps=settings["inner_steps"]),
    "anil": lambda model, settings, _: cx.learners.anil(
        model, inner_lr=settings["inner_lr"]["classifier"], num_steps=settings["inner_steps"]
    ),
    "boil": lambda model, settings, _: cx.learners.boil(
        model, inner_lr=settings["inner_lr"]["body"], num_steps=settings["inner_steps"]
    ),
    "cavia": lambda model, settings, _: cx.learners.cavia(
        model, inner_lr=settings["inner_lr"], num_steps=settings["inner_steps"], context_dim=settings["context_params"]
    ),
    "l2f": lambda model, settings, _: cx.learners.l2f(
        model, inner_lr=settings["inner_lr"], num_steps=settings["inner_steps"], first_order_epochs=11
    ),
    "mamlpp": lambda model, settings, _: cx.learners.maml_plus_plus(
        model, num_steps=settings["inner_steps"], multi_step_epochs=settings["multi_step_loss_num_epochs"]
    ),
    "metasgd": lambda model, settings, _: cx.learners.meta_sgd(model, num_steps=settings["inner_steps"]),
    "modgrad": lambda model, settings, golden: cx.learners.modgrad(
        model,
        inner_lr=settings["inner_lr"],
        context_dim=settings["context_params"],
        num_mix=settings["num_mix"],
        num_passes=golden["iter0/context"].shape[1],
    ),  # fmt: skip
}
INTEROP = {"alfa": "alfa", "anil": "anil", "boil": "boil", "cavia": "cavia", "l2f": "l2f", "mamlpp": "maml_plus_plus"}

# Official names to paths, one after the other, of the codes that ``interop`` does not know.
NAMES = {
    "metasgd": [
        (r"^task_lr/meta_learner\.", "inner_lr/"),
        (r"^meta_learner\.", "model/"),
        (r"features\.(\d)\.conv\d\.", r"block_\1/conv/"),
        (r"features\.(\d)\.bn\d\.", r"block_\1/norm/"),
        (r"fc\.", "head/"),
    ],
    "modgrad": [
        (r"^model\.classifier\.", "model/head/"),
        (r"^model\.cnn\.encoder\.(\d)\.0\.", r"model/block_\1/conv/"),
        (r"^model\.cnn\.encoder\.(\d)\.1\.", r"model/block_\1/norm/"),
        (r"^pcg\.(u|v)\1_(\d)", r"modulator/block_\2/conv/kernel/\1"),
        (r"^pcg\.bb_(\d)", r"modulator/block_\1/conv/bias/u"),
        (r"^modulator/block_(\d)", lambda match: f"modulator/block_{int(match[1]) - 1}"),
        (r"\.0\.", "/hidden/"),
        (r"\.2\.", "/output/"),
    ],
}


def tensors(golden, prefix: str, kind: str) -> dict[str, np.ndarray]:
    """The arrays under ``prefix/`` in this package's layout, by path."""
    stored = {k.removeprefix(f"{prefix}/"): golden[k] for k in golden.files if k.startswith(f"{prefix}/")}
    if kind in INTEROP:
        return by_path(cx.interop.from_official(stored, INTEROP[kind]))
    found = {}
    for path, array in stored.items():
        for pattern, replacement in NAMES[kind]:
            path = re.sub(pattern, replacement, path)
        path = re.sub("weight$", "scale" if "/norm/" in path else "kernel", path)
        if kind == "modgrad" and path == "model/head/kernel":  # behind maps flattened from (C, H, W)
            side = round((array.shape[1] / golden[f"{prefix}/model.cnn.encoder.3.0.weight"].shape[0]) ** 0.5)
            array = array.reshape(len(array), -1, side, side).transpose(0, 2, 3, 1).reshape(array.shape)
        found[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return found


def record_trace(record, golden, iteration: str, kind: str, num_mix: int, params, task) -> None:
    """Compares what happens in the inner loop."""
    expected = {key.removeprefix(f"{iteration}/"): golden[key] for key in golden.files if key.startswith(iteration)}
    losses = task.trace["support_loss"]
    record("support loss", losses.reshape(expected["support_losses"].shape), expected["support_losses"])
    if kind == "alfa":
        for name, theirs in {"tau": "state", "A": "generated_alpha", "B": "generated_beta"}.items():
            record(name, task.trace[name], expected[theirs])
    if kind == "l2f":
        record("attenuation", task.trace["gamma"], expected["attenuation"])
        record("embedding", task.trace["embedding"], expected["task_embedding"])
    if kind == "cavia":
        context = jnp.concatenate([task.trace["context"], task.context[:, None]], axis=1)
        record("context", context, expected["context"])
    if kind == "modgrad":
        record("context", task.trace["context"], expected["context"])
        record("mask", last_masks(params, task.trace["context"][:, -1], num_mix), expected["masks_last"])


def last_masks(params, contexts, num_mix: int) -> np.ndarray:
    """The masks of the last pass in the order of the file: third and fourth convolution, kernel and bias."""
    rows = []
    for context in contexts:
        parts = []
        for block in ("block_2", "block_3"):
            for name in ("kernel", "bias"):
                shape = params["model"][block]["conv"][name].shape
                found = mask(params["modulator"][block]["conv"][name], context, num_mix, shape)
                parts.append(found.transpose(3, 2, 0, 1).reshape(-1) if found.ndim == 4 else found)
        rows.append(np.concatenate(parts))
    return np.stack(rows)


@pytest.mark.parametrize("kind", LEARNERS)
def test_float64_agrees_with_the_public_code(kind):
    golden, found = np.load(GOLDEN / f"{kind}.npz"), {}
    settings, record = json.loads(str(golden["meta"])), recorder(found)
    slope = 0.01 if settings["activation"].startswith("leaky") else 0.0
    model = cx.models.Conv4(settings["way"], settings["filters"], use_bias=settings["conv_bias"], negative_slope=slope)
    learner = LEARNERS[kind](model, settings, golden)
    reduce = jnp.sum if settings["task_reduction"] == "sum" else jnp.mean
    params = merge(tensors(golden, "param", kind))
    optimiser = compiled(outer_adam(settings["outer"]["lr"]))
    opt_state, zeros, steps = optimiser.init(params), set(), 0
    last_epoch = settings.get("multi_step_loss_num_epochs", 15)

    step = outer_step(learner, reduce)
    for i in (*(f"iter{i}" for i in range(settings["iterations"])), "eval"):
        epoch = int(golden[f"{i}/epoch"]) if f"{i}/epoch" in golden else last_epoch
        outcome, gradient = step(params, episodes_of(golden, i, np.float64, "iter0"), epoch * EPOCH)
        losses, task, logits = first_tasks(outcome, golden, i)
        record("loss", reduce(losses), golden[f"{i}/loss"])
        if kind == "metasgd":
            record("logits", jax.nn.log_softmax(logits), golden[f"{i}/query_logprobs"])
        else:
            record("logits", logits, golden[f"{i}/query_logits"])
        record_trace(record, golden, i, kind, settings.get("num_mix", 0), params, task)
        if kind == "mamlpp" and epoch < last_epoch:
            weights = step_weights(epoch, settings["inner_steps"], last_epoch)
            record("weights", weights, golden[f"{i}/loss_importance"])
        if i == "eval":
            break
        expected = tensors(golden, f"{i}/grad", kind)
        ours = by_path(gradient)
        assert ours.keys() == expected.keys()
        largest = max(np.max(np.abs(array)) for array in expected.values())
        for path, theirs in expected.items():
            if np.max(np.abs(theirs)) < ZERO * largest:
                zeros.add(path)
                assert np.max(np.abs(ours[path])) < ZERO * largest, path
            else:
                record("gradient", ours[path], theirs)
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        # Adam divides by the gradient's size + 1e-8, and so moves by the rounding of a zero.
        steps += 1
        moved = steps * settings["outer"]["lr"] * ZERO * largest / 1e-8
        for path, theirs in tensors(golden, f"{i}/param_after", kind).items():
            ours = np.asarray(by_path(params)[path])
            if path in zeros:
                assert np.max(np.abs(ours - theirs)) < moved, path
            else:
                record("parameter", ours, theirs)
    print(kind, found)
    assert found.pop("parameter") < PARAMETER.get(kind, FLOAT64)
    assert max(found.values()) < FLOAT64, found
