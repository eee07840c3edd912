"""Supervised pre-training against Meta-Baseline's first stage, in float64."""

from typing import Any

import jax
import optax
import pytest
from golden_files import Comparison, averages, backbone, compiled, images_of, load, tensors

import cxgrad_jax as cx
from cxgrad_jax.learners import by_path, merge, with_running_averages
from cxgrad_jax.pretraining import Batch, pretraining, pretraining_sgd

pytestmark = pytest.mark.usefixtures("double_precision")


def test_a_pretraining_agrees_with_the_official_code_in_float64():
    golden, settings = load("classifier_baseline")
    outer, comparison = settings["outer"], Comparison()
    model = backbone(settings, settings["way"])
    few_shot = cx.learners.classifier_baseline(model, query_statistics="running")
    learner = pretraining(few_shot, model, settings["n_classes"])
    sgd = pretraining_sgd(outer["lr"], outer["momentum"], outer["weight_decay"], drop_at=(), drop_factor=0.1)
    optimiser = compiled(with_running_averages(sgd))
    params: Any = merge(tensors(golden, "param", "baseline"))
    params["statistics"] = {"model": averages(golden, "buffer", "baseline")}
    state = optimiser.init(params)
    evaluate = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))

    for prefix in (f"iter{i}" for i in range(settings["iterations"])):
        batch = Batch(images_of(golden[f"{prefix}/x"]), golden[f"{prefix}/y"])
        (value, _), gradient = evaluate(params, batch)
        comparison.record("loss", value, golden[f"{prefix}/loss"])
        updates, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        ours = by_path(params)
        for path, values in tensors(golden, f"{prefix}/param_after", "baseline").items():
            comparison.record("parameters", ours[path], values)
        moved = averages(golden, f"{prefix}/buffer_after", "baseline")
        jax.tree.map(lambda a, b: comparison.record("averages", a, b), params["statistics"]["model"], moved)
    comparison.verdict("pretraining")
