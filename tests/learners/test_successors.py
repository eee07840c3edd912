"""What must hold of the successor methods whatever the numbers: reductions, symmetries, optimality."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import WAY, first_params, make_episode, model, relative

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, cross_entropy, default_labels, merge
from cxgrad_jax.learners._baseline_plus_plus import fine_tune
from cxgrad_jax.learners._labels import split_by_label
from cxgrad_jax.learners._mlp import linear
from cxgrad_jax.learners._r2d2 import ridge_with_bias
from cxgrad_jax.learners._rfs import logistic_regression
from cxgrad_jax.learners._ridge import dual_ridge, primal_ridge, ridge
from cxgrad_jax.learners._svm import svm_duals

pytestmark = pytest.mark.usefixtures("double_precision")

EPISODE: Any = make_episode()
ORDER = np.array([2, 0, 1])  # a permutation of the classes
TARGETS: Any = np.eye(WAY)[EPISODE.support_labels]


def features(number=6, size=10, seed=0) -> Any:
    return np.random.default_rng(seed).normal(size=(number, size)) + TARGETS[:number] @ np.ones((WAY, size))


def made(factory, **hyper_parameters):
    learner = factory(model(), **hyper_parameters)
    return learner, first_params(learner, EPISODE.support_images)


def logits_of(learner, params, episode=EPISODE):
    def predict(params, support_labels):
        adapted = learner.adapt(params, episode.support_images, support_labels)
        return learner.predict(params, adapted, episode.query_images)

    return np.asarray(jax.jit(predict)(params, episode.support_labels))


def test_unicorn_s_first_step_moves_the_head_alone():
    learner, params = made(cx.learners.unicorn_maml, num_steps=2)
    trace = jax.jit(learner.adapt)(params, EPISODE.support_images, EPISODE.support_labels).trace
    assert float(trace["support_loss"][0]) == pytest.approx(np.log(WAY), rel=1e-14)
    for path, values in trace["fast"].items():
        change = np.max(np.abs(values[1] - values[0]))
        assert change > 1e-4 if path == "head/kernel" else change < 1e-15, path

    # W_c = w + alpha / N (mean of class c - mean of all)
    embed = jax.jit(lambda params, images: apply_model(model(), params, images, "embed"))
    f = np.asarray(embed(params["model"], EPISODE.support_images))
    means = np.stack([f[EPISODE.support_labels == c].mean(axis=0) for c in range(WAY)])
    expected = params["model"]["head"]["kernel"] + 0.1 / WAY * (means - f.mean(axis=0)).T
    assert relative(trace["fast"]["head/kernel"][1], expected) < 1e-12


@pytest.mark.slow
def test_a_permutation_of_the_classes_permutes_unicorn_s_logits():
    renamed = EPISODE._replace(support_labels=ORDER[EPISODE.support_labels])
    for factory, same in ((cx.learners.unicorn_maml, True), (cx.learners.maml, False)):
        learner, params = made(factory, inner_lr=0.1, num_steps=3)
        ours, theirs = logits_of(learner, params, renamed)[:, ORDER], logits_of(learner, params)
        assert (relative(ours, theirs) < 1e-11) == same


@pytest.mark.slow
def test_unicorn_is_of_first_order():
    learner, params = made(cx.learners.unicorn_maml, num_steps=2)

    def query_loss(fast, adapted):
        return cross_entropy(learner.predict(params, adapted._replace(model=fast), EPISODE.query_images),
                             EPISODE.query_labels)  # fmt: skip

    adapted = learner.adapt(params, EPISODE.support_images, EPISODE.support_labels)
    at_the_end = jax.grad(query_loss)(adapted.model, adapted)
    ours = jax.jit(jax.grad(lambda params: learner.loss(params, EPISODE)[0]))(params)["model"]
    assert max(np.max(np.abs(g)) for g in jax.tree.leaves(ours.pop("head"))) < 1e-15  # the sum over the classes
    assert max(np.max(np.abs(g)) for g in jax.tree.leaves(at_the_end.pop("head"))) > 1e-3
    assert relative(ours, at_the_end) < 1e-11


def inert(params):
    """The same with loss networks of no output; those that adapt them have no effect at the start."""
    silent = jax.tree.map(lambda x: x, params)
    for network in silent["losses"].values():
        network["output"] = jax.tree.map(jnp.zeros_like, network["output"])
    return silent


@pytest.mark.slow
def test_metal_with_inert_adapters_is_maml_with_a_joint_pass():
    metal, params = made(cx.learners.metal, num_steps=2, inner_lr=0.1)
    images: Any = np.concatenate([EPISODE.support_images, EPISODE.query_images])
    labels: Any = np.concatenate([EPISODE.support_labels, EPISODE.query_labels])

    def maml(start):
        theta, frozen, _ = split_by_label(start, default_labels)

        def support_loss(fast):
            logits = apply_model(model(), merge(fast, frozen), images)
            return cross_entropy(logits[: len(TARGETS)], EPISODE.support_labels)

        for _ in range(2):
            theta = jax.tree.map(lambda p, g: p - 0.1 * g, theta, jax.grad(support_loss)(theta))
        return cross_entropy(apply_model(model(), merge(theta, frozen), images), labels)

    ours = jax.jit(jax.value_and_grad(lambda params: metal.loss(params, EPISODE)[0]))
    expected, gradient = jax.jit(jax.value_and_grad(maml))(params["model"])
    value, found = ours(inert(params))
    assert relative((value, found["model"]), (expected, gradient)) < 1e-11
    assert relative(ours(params)[0], expected) > 1e-6


@pytest.mark.slow
def test_inductive_metal_with_inert_adapters_is_maml():
    metal, params = made(cx.learners.metal, num_steps=2, query_statistics="support")
    maml, _ = made(cx.learners.maml, num_steps=2, query_statistics="support")
    expected = logits_of(maml, {"model": params["model"]})
    assert relative(logits_of(metal, inert(params)), expected) < 1e-11
    assert relative(logits_of(metal, params), expected) > 1e-6


@pytest.mark.slow
def test_metal_sees_the_query_images_as_a_set():
    metal, params = made(cx.learners.metal, num_steps=2)
    order = np.random.default_rng(0).permutation(len(EPISODE.query_images))
    permuted = EPISODE._replace(query_images=EPISODE.query_images[order])
    assert relative(logits_of(metal, params, permuted), logits_of(metal, params)[order]) < 1e-10
    fewer = EPISODE._replace(query_images=EPISODE.query_images[:-1])
    assert relative(logits_of(metal, params, fewer), logits_of(metal, params)[:-1]) > 1e-6


@pytest.mark.slow
def test_alfa_with_metal_that_generates_one_and_zero_is_metal():
    both, params = made(cx.learners.metal, num_steps=2, alfa=True)
    metal, _ = made(cx.learners.metal, num_steps=2)
    output = params["generator"]["output"]
    half = len(output["bias"]) // 2
    params["generator"]["output"] = {
        "kernel": jnp.zeros_like(output["kernel"]),
        "bias": jnp.concatenate([jnp.ones(half), jnp.zeros(half)]),
    }
    assert relative(logits_of(both, params), logits_of(metal, params)) < 1e-11


def test_ridge_in_primal_and_dual_form_agree():
    for number, size in ((4, 9), (6, 6), (6, 3)):
        x, y = features(number, size), TARGETS[:number]
        solutions = [solve(x, y, 0.7) for solve in (primal_ridge, dual_ridge, ridge)]
        residual = x.T @ (x @ solutions[0] - y) + 0.7 * solutions[0]
        assert relative(solutions[0], solutions[1]) < 1e-11 and relative(solutions[2], solutions[1]) < 1e-11
        assert np.max(np.abs(residual)) < 1e-12


def test_r2d2_regularises_by_so_many_times_lambda_and_its_bias_too():
    x = features()
    with_bias: Any = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    assert relative(ridge_with_bias(x, TARGETS, 2.0), primal_ridge(with_bias, TARGETS, 2.0 * len(x))) < 1e-11


def test_r2d2_learns_logarithms_of_the_same_numbers():
    plain, params = made(cx.learners.r2d2, learned_regularisation=True, regularisation=3.0, initial_scale=0.5)
    logarithmic, others = made(
        cx.learners.r2d2, learned_regularisation=True, regularisation=3.0, initial_scale=0.5, logarithmic=True
    )
    assert float(others["scale"]) == pytest.approx(np.log10(0.5)) and float(params["scale"]) == 0.5
    assert relative(logits_of(plain, params), logits_of(logarithmic, others)) < 1e-12


def test_logistic_regression_is_at_its_minimum_and_so_are_its_derivatives():
    x = features()

    def loss(regression, x):
        fit = -jnp.sum(TARGETS * jax.nn.log_softmax(linear(regression, x)))
        return fit + 0.3 / 2 * jnp.sum(regression["kernel"] ** 2)

    found = logistic_regression(x, TARGETS, 0.3)
    assert all(np.max(np.abs(g)) < 1e-12 for g in jax.tree.leaves(jax.grad(loss)(found, x)))
    direction, h = np.random.default_rng(1).normal(size=x.shape), 1e-5
    ahead, behind = (logistic_regression(x + sign * h * direction, TARGETS, 0.3) for sign in (1, -1))
    numeric = jax.tree.map(lambda a, b: (a - b) / (2 * h), ahead, behind)
    derivative = jax.jvp(lambda x: logistic_regression(x, TARGETS, 0.3), (x,), (direction,))[1]
    assert relative(derivative, numeric) < 1e-7
    together = jax.jit(jax.vmap(lambda x: logistic_regression(x, TARGETS, 0.3)))(np.stack([x, 2 * x]))
    assert relative(jax.tree.map(lambda values: values[0], together), found) < 1e-11


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_the_svm_is_feasible_and_optimal(size):
    x = size * features()
    duals = np.asarray(svm_duals(x, TARGETS, 0.1))
    assert np.max(np.abs(duals.sum(axis=1))) < 1e-15 and np.max(duals - 0.1 * TARGETS) < 1e-15
    gradient = x @ x.T @ duals + duals - TARGETS

    # Optimal: within an image no weight can go from a class to another that has room and gains by it.
    for row, slope, bound in zip(duals, gradient, 0.1 * TARGETS, strict=True):
        assert np.max(slope) - np.min(slope[row < bound - 1e-9]) < 1e-9
    single = svm_duals(x.astype(np.float32), TARGETS.astype(np.float32), 0.1)
    assert relative(single, duals) < 1e-3


def test_the_svm_is_solved_for_large_features_that_no_plane_separates():
    rng, targets = np.random.default_rng(0), np.eye(5).repeat(5, axis=0)
    x = 100 * np.abs(rng.standard_normal((25, 8)))
    duals = np.asarray(svm_duals(jnp.asarray(x), jnp.asarray(targets), 0.1))
    assert np.max(duals - 0.1 * targets) < 1e-13 and np.max(np.abs(duals.sum(axis=1))) < 1e-13
    gradient = x @ x.T @ duals + duals - targets
    for row, slope, bound in zip(duals, gradient, 0.1 * targets, strict=True):
        assert np.max(slope) - np.min(slope[row < bound - 1e-9]) < 1e-7


def test_an_svm_that_is_not_solved_is_nan():
    x = 1e4 * np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    targets = jnp.eye(3, dtype=np.float32).repeat(10, axis=0)
    assert np.isnan(svm_duals(jnp.asarray(x), targets, 0.1)).all()


def test_fine_tuning_takes_the_smaller_last_batch_as_it_is():
    x, labels = features(), EPISODE.support_labels
    head: Any = {"kernel": np.ones((10, WAY)), "bias": np.arange(float(WAY))}
    order: Any = np.array([[3, 1, 0, 5, 4, 2]])
    _, losses = fine_tune(linear, head, x, labels, order, batch_size=4, lr=1e-300)
    assert len(losses) == 2
    assert float(losses[1]) == pytest.approx(float(cross_entropy(linear(head, x[[4, 2]]), labels[[4, 2]])), rel=1e-13)


def test_the_same_episode_gets_the_same_head():
    (learner, params), (other, _) = (made(cx.learners.baseline_plus_plus, num_epochs=2) for _ in range(2))
    assert learner is not other
    np.testing.assert_array_equal(logits_of(learner, params), logits_of(other, params))
    images = jnp.stack([EPISODE.support_images, EPISODE.support_images[::-1]])
    heads = jax.vmap(lambda x: learner.adapt(params, x, EPISODE.support_labels).episode)(images)
    alone = learner.adapt(params, EPISODE.support_images, EPISODE.support_labels).episode
    assert relative(jax.tree.map(lambda x: x[0], heads), alone) < 1e-12


def test_classifier_baseline_is_meta_baseline_with_a_fixed_scale():
    ours, params = made(cx.learners.classifier_baseline)
    theirs, others = made(cx.learners.meta_baseline)
    assert others.keys() - params.keys() == {"scale"}
    assert relative(logits_of(ours, params), logits_of(theirs, params | {"scale": jnp.float64(10.0)})) < 1e-13


def test_a_model_without_a_head_or_classes_is_refused_by_unicorn():
    class Nameless(cx.models.Conv4.__mro__[1]):
        pass

    with pytest.raises(cx.UserError, match="Nameless has no num_classes"):
        cx.learners.unicorn_maml(Nameless())


def test_ridge_scores_of_metaoptnet_are_twice_the_closed_form():
    learner, params = made(partial(cx.learners.metaoptnet, regularisation=5.0))
    support, query = (apply_model(model(), params["model"], x, "embed") for x in
                      (EPISODE.support_images, EPISODE.query_images))  # fmt: skip
    plain = query @ primal_ridge(support, TARGETS, 5.0)
    assert relative(logits_of(learner, params), 2 * plain) < 1e-10
