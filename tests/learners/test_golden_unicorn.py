"""The trajectory of UNICORN-MAML's official code, in ``tests/golden`` (float64 figures, no code)."""

import re
from typing import Any

import jax
import numpy as np
import optax
import pytest
from golden_files import Comparison, averages, load, one_episode, outer_optimiser, tensors

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_in_training, apply_model
from cxgrad_jax.learners._labels import by_path, merge

pytestmark = pytest.mark.usefixtures("double_precision")


def parameters(golden, prefix):
    """Those under ``prefix/``; ``encoder.fc`` is there to be overwritten, and no parameter of the method."""
    found = tensors(golden, prefix, "unicorn")
    return {path: array for path, array in found.items() if not path.startswith("encoder.fc")}


def test_unicorn_agrees_with_the_official_code_in_float64():
    golden, settings = load("unicorn")
    comparison, temperature = Comparison(), settings["temperature"]
    model = cx.models.ResNet12(
        settings["way"], tuple(settings["channels"]), "every_block", negative_slope=0.1, relu_output=True
    )
    learner = cx.learners.unicorn_maml(
        model, inner_lr=settings["inner_lr"], num_steps=settings["inner_steps"], temperature=temperature
    )
    params, optimiser = merge(parameters(golden, "param")), outer_optimiser(settings)
    opt_state, statistics = optimiser.init(params), averages(golden, "buffer", "unicorn")
    steps, faster = range(settings["inner_steps"]), settings["outer"]["lr_fcone"] / settings["outer"]["lr"]

    value_and_gradient = jax.jit(jax.value_and_grad(lambda params, episode: learner.loss(params, episode)[0]))
    adapt, predict = jax.jit(learner.adapt), jax.jit(learner.predict)
    logits_of = jax.jit(lambda params, images: apply_model(model, params, images))
    moved_by = jax.jit(
        lambda statistics, params, images: apply_in_training(model, params, images, statistics=statistics)[1]
    )

    def record_inner_loop(prefix, adapted, episode):
        expected = {key.removeprefix(f"{prefix}/"): x for key, x in golden.items() if key.startswith(f"{prefix}/")}
        comparison.record("support loss", adapted.trace["support_loss"], expected["support_losses"])
        at_step = [jax.tree.map(lambda x, k=k: x[k], adapted.trace["fast"]) for k in steps]
        for k in steps:
            logits = logits_of(merge(at_step[k]), episode.support_images)
            comparison.record("support logits", logits, expected["support_logits"][k])
        names = [str(name) for name in golden["fast_names"]]
        paths = [next(iter(tensors({f"_/{name}": np.zeros(1)}, "_", "unicorn"))) for name in names]
        for k, fast in enumerate([*at_step[1:], by_path(adapted.model)]):
            norms = [np.linalg.norm(fast[path.removeprefix("model/")]) for path in paths]
            comparison.record("norms", norms, expected["fast_norms"][k])
        return at_step

    for prefix in (f"iter{i}" for i in range(settings["iterations"])):
        episode = one_episode(golden, prefix)
        value, gradient = value_and_gradient(params, episode)
        adapted = adapt(params, episode.support_images, episode.support_labels)
        logits = predict(params, adapted, episode.query_images)
        comparison.record("loss", value, golden[f"{prefix}/loss"])
        comparison.record("logits", logits, golden[f"{prefix}/query_logits"])
        at_step = record_inner_loop(prefix, adapted, episode)
        for fast in at_step:
            statistics = moved_by(statistics, merge(fast), episode.support_images)
        statistics = moved_by(statistics, adapted.model, episode.query_images)
        expected = averages(golden, f"{prefix}/buffer_after", "unicorn")
        jax.tree.map(lambda ours, theirs: comparison.record("averages", ours, theirs), statistics, expected)
        for path, theirs in parameters(golden, f"{prefix}/fast_last").items():
            comparison.record("adapted", by_path(adapted.model)[path.removeprefix("model/")], theirs)
        comparison.gradients(by_path(gradient), parameters(golden, f"{prefix}/grad"))
        steps_of: Any
        steps_of, opt_state = optimiser.update(gradient, opt_state, params)
        updates = {"model": steps_of["model"] | {"head": optax.tree.scale(faster, steps_of["model"]["head"])}}
        params = optax.apply_updates(params, updates)
        expected = parameters(golden, f"{prefix}/param_after")
        params = comparison.parameters(by_path(params), expected, settings["outer"]["lr"])

    # At evaluation the inner steps move running averages, by which the query images are then normalised.
    for prefix in sorted({key.split("/")[0] for key in golden if re.match(r"eval\d", key)}):
        episode, statistics = one_episode(golden, prefix), averages(golden, f"{prefix}/buffer_before", "unicorn")
        adapted = adapt(params, episode.support_images, episode.support_labels)
        for fast in record_inner_loop(prefix, adapted, episode):
            statistics = moved_by(statistics, merge(fast), episode.support_images)
        logits = learner.predict(params, adapted._replace(statistics=statistics), episode.query_images)
        comparison.record("logits", logits, golden[f"{prefix}/query_logits"])
    comparison.verdict("unicorn")
