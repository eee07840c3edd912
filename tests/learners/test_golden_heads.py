"""Heads on given features against scikit-learn and the official code of Baseline++, in ``tests/golden`` (float64)."""

from typing import Any

import numpy as np
import pytest
from golden_files import Comparison, load

from cxgrad_jax.learners import _baseline_plus_plus as baseline
from cxgrad_jax.learners._cosine import unit
from cxgrad_jax.learners._mlp import linear
from cxgrad_jax.learners._rfs import logistic_regression, objective

pytestmark = pytest.mark.usefixtures("double_precision")

SCIKIT_LEARN = 1e-5  # what its solver leaves of the optimum


def test_golden_logistic_regression_is_the_minimum_that_scikit_learn_finds():
    golden, settings = load("rfs_logreg")
    comparison, features = Comparison(), unit(golden["support_features"])
    targets: Any = np.eye(settings["way"])[golden["support_y"]]
    found = logistic_regression(features, targets, 1 / settings["C"])
    comparison.record("kernel", found["kernel"].T, golden["coef_tight"])
    comparison.record("bias", found["bias"], golden["intercept_tight"])
    comparison.record("scores", linear(found, unit(golden["query_features"])), golden["query_scores_tight"])
    loss = settings["C"] * objective(
        ((targets - shares(linear(found, features))) * settings["C"], found["bias"]),
        features @ features.T, targets, 1 / settings["C"],
    )  # fmt: skip
    comparison.record("objective", loss, golden["objective_tight"])
    predicted = np.argmax(linear(found, unit(golden["query_features"])), axis=1)
    np.testing.assert_array_equal(predicted, golden["query_pred"])
    comparison.verdict("rfs_logreg", SCIKIT_LEARN)


def shares(scores):
    scores = np.exp(scores - np.max(scores, axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classifier", ["cosine", "linear"])
def test_golden_fine_tuning_agrees_with_the_official_code(classifier):
    golden, settings = load("baselinepp_finetune")
    outer, comparison = settings["outer"], Comparison()
    assert (outer["momentum"], outer["dampening"], outer["weight_decay"]) == (
        baseline.MOMENTUM, baseline.DAMPENING, baseline.WEIGHT_DECAY,
    )  # fmt: skip
    support, query = (golden[f"{kind}_features"] for kind in ("support", "query"))
    labels: Any = np.arange(settings["way"], dtype=np.int32).repeat(support.shape[1])
    support, query = (x.reshape(-1, settings["dim"]) for x in (support, query))
    prefix = {"cosine": "dist", "linear": "softmax"}[classifier]
    names = {"cosine": {"kernel": "weight_v", "length": "weight_g"}, "linear": {"kernel": "weight", "bias": "bias"}}

    def stored(when):
        arrays = {ours: golden[f"{prefix}/{when}/{theirs}"] for ours, theirs in names[classifier].items()}
        return {name: array.T if name == "kernel" else array.reshape(-1) for name, array in arrays.items()}

    logits_of = baseline.cosine_logits(settings["scale"]) if classifier == "cosine" else linear
    head, losses = baseline.fine_tune(
        logits_of, stored("init"), support, labels, golden[f"{prefix}/permutations"], settings["batch"], outer["lr"]
    )
    comparison.record("loss", losses, golden[f"{prefix}/losses"])
    for name, expected in stored("after").items():
        comparison.record(name, head[name], expected)
    comparison.record("scores", logits_of(head, query), golden[f"{prefix}/query_scores"])
    comparison.verdict(f"baselinepp_finetune, {classifier}")
