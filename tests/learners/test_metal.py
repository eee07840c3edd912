"""MeTAL: its reductions to MAML, and the query images as a set."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import model, relative
from small_episode import EPISODE, TARGETS, logits_of, made

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, cross_entropy, default_labels, merge
from cxgrad_jax.learners._labels import split_by_label

pytestmark = pytest.mark.usefixtures("double_precision")


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
