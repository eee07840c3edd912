"""Every learner learns: after at most 50 outer iterations it tells separable classes apart."""

import jax
import numpy as np
import optax
import pytest

import cxgrad_jax as cx

WAY, SHOT, QUERY, ITERATIONS = 3, 2, 3, 40
SETTINGS = {
    "cxgrad": {"num_steps": 2, "context_dim": 8, "inner_lr": 0.1}, "maml": {"num_steps": 2, "inner_lr": 0.1},
    "cxgrad_explicit": {"num_steps": 2, "context_dim": 8, "inner_lr": 0.1}, "anil": {"num_steps": 3},
    "cxgrad_informed": {"num_steps": 2, "inner_lr": 0.1},
    "alfa": {"num_steps": 2, "initial_lr": 0.1}, "l2f": {"num_steps": 2, "inner_lr": 0.1},
    "maml_plus_plus": {"num_steps": 2, "initial_lr": 0.1}, "cavia": {"context_dim": 8},
    "modgrad": {"context_dim": 8, "num_mix": 2},
}  # fmt: skip


def episode(index):
    """Classes are colours drawn anew in every episode, with noise: easy, but not by a fixed classifier."""
    rng = np.random.default_rng(index)
    colours = rng.permutation(np.eye(3))[:, None, None, None] * 0.5 + 0.2
    images = np.clip(colours + 0.05 * rng.normal(size=(WAY, SHOT + QUERY, 16, 16, 3)), 0, 1).astype(np.float32)
    support, query = (part.reshape(-1, 16, 16, 3) for part in (images[:, :SHOT], images[:, SHOT:]))
    labels = np.arange(WAY, dtype=np.int32)
    return cx.Episode(support, labels.repeat(SHOT), query, labels.repeat(QUERY))


@pytest.mark.slow_except("cxgrad", "proto_net")
@pytest.mark.parametrize("name", cx.learners.NAMES)
def test_learns_separable_classes(name):
    learner = getattr(cx.learners, name)(cx.models.Conv4(WAY, features=8), **SETTINGS.get(name, {}))
    params = jax.jit(learner.init)(jax.random.key(0), episode(0).support_images)
    optimiser = optax.adam(1e-2)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, episodes):
        def loss(params):
            losses, metrics = jax.vmap(lambda each: learner.loss(params, each))(episodes)
            return losses.mean(), metrics["accuracy"].mean()

        (_, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, accuracy

    accuracies = []
    for iteration in range(ITERATIONS):
        episodes = jax.tree.map(lambda *x: np.stack(x), *(episode(4 * iteration + i) for i in range(4)))
        params, state, accuracy = step(params, state, episodes)
        accuracies.append(float(accuracy))
    assert np.mean(accuracies[-5:]) > 0.8, "chance is a third"
