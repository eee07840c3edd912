"""``fit`` trains, is a pure function of its arguments, and stops where it is told to."""

import jax
import numpy as np
import optax
import pytest
from flax.core import FrozenDict, freeze
from small import make, make_episode

import cxgrad_jax as cx
from cxgrad_jax.fitting import init_state

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 1, 1, 1, 3))
IMAGES = np.clip(COLOURS + RNG.integers(-30, 30, (6, 8, 16, 16, 3)), 0, 255).astype(np.uint8).reshape(-1, 16, 16, 3)
SAMPLER = cx.sampler(
    cx.data.ImageStore(IMAGES, np.arange(0, 49, 8, dtype=np.int32), tuple("abcdef")), way=3, shot=1, query=3
)


def fit(**changes):
    learner, _, _ = make("proto_net", make_episode())
    arguments = {"iterations": 4, "tasks": 2, "progress": False, **changes}
    return learner, cx.fit(learner, SAMPLER, optax.adam(0.01), **arguments)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.slow
def test_the_loss_falls_and_the_accuracy_rises():
    seen = []
    learner, params = fit(iterations=40, tasks=4, callback=lambda iteration, metrics: seen.append((iteration, metrics)))
    assert [iteration for iteration, _ in seen] == list(range(1, 41))
    assert all(isinstance(value, float) for _, metrics in seen for value in metrics.values())
    assert seen[-1][1]["loss"] < 0.5 * seen[0][1]["loss"]
    assert cx.evaluate(learner, params, SAMPLER, episodes=20).accuracy > 0.8


def test_the_same_arguments_give_the_same_bits_and_another_seed_others():
    first, again, other = (fit(seed=seed)[1] for seed in (0, 0, 1))
    assert equal(first, again) and not equal(first, other)


def test_a_callback_ends_the_training():
    _, stopped = fit(callback=lambda iteration, _: iteration == 2)
    _, short = fit(iterations=2)
    assert equal(stopped, short)


def test_it_starts_from_given_parameters_and_leaves_them_alone():
    _, start = fit(iterations=1)
    before = jax.tree.map(np.array, start)
    _, further = fit(params=start)
    assert equal(start, before) and not equal(start, further)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_told():
    with pytest.raises(cx.UserError, match=r"(loss|gradient norm) became .* at iteration \d+; lower the rate"):
        cx.fit(fit(iterations=1)[0], SAMPLER, optax.sgd(1e30), iterations=9, tasks=2, progress=False)


@pytest.mark.parametrize("changes", [{"iterations": 0}, {"tasks": -1}, {"iterations": 2.0}])
def test_numbers_that_cannot_be(changes):
    (name, value), *_ = changes.items()
    with pytest.raises(cx.UserError, match=f"{name} is {value}; expected a whole number, at least 1"):
        fit(**changes)


def test_an_optimiser_gets_the_loss():
    learner, _, _ = make("proto_net", make_episode())
    optimiser = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.9))
    arguments: dict = {"iterations": 6, "tasks": 2, "progress": False}
    falling = cx.fit(learner, SAMPLER, optimiser, **arguments)  # no loss falls to a tenth, so the rate falls
    assert not equal(falling, cx.fit(learner, SAMPLER, optax.sgd(0.1), **arguments))


def test_an_optimiser_that_needs_more_is_refused():
    learner, _, _ = make("proto_net", make_episode())
    with pytest.raises(cx.UserError, match=r"optimiser cannot be used in fit \(.*'value_fn'\); expected one whose"):
        cx.fit(learner, SAMPLER, optax.lbfgs(), iterations=1, progress=False)


def test_a_seed_gives_one_start_whatever_the_draws_of_threefry():
    learner, _, _ = make("proto_net", make_episode())
    start = init_state(learner, optax.adam(0.01), 3, IMAGES[:2])
    with jax.threefry_partitionable(False):
        assert equal(init_state(learner, optax.adam(0.01), 3, IMAGES[:2]), start)


@pytest.mark.parametrize("query_statistics", ["query", "running"])
def test_parameters_may_be_a_frozen_dict(query_statistics):
    learner, _, params = make("proto_net", make_episode(), query_statistics=query_statistics)
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    plain = cx.fit(learner, SAMPLER, optax.adam(0.01), iterations=2, params=params, progress=False)
    frozen = cx.fit(learner, SAMPLER, optax.adam(0.01), iterations=2, params=freeze(params), progress=False)
    assert isinstance(frozen, FrozenDict) and equal(frozen.unfreeze(), plain)
    optimiser = cx.learners.with_running_averages(optax.adam(0.01))
    updates, _ = optimiser.update(freeze(params), optimiser.init(freeze(params)), freeze(params))
    assert isinstance(updates, FrozenDict)


def test_a_start_that_is_not_finite_is_told_as_such():
    learner, _, params = make("proto_net", make_episode())
    params = jax.tree.map(lambda x: np.full(x.shape, np.nan, np.float32), params)
    with pytest.raises(cx.UserError, match="became nan at iteration 1; lower the inner rate, or look for NaN"):
        cx.fit(learner, SAMPLER, optax.adam(0.01), iterations=2, params=params, progress=False)
