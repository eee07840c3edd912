"""Classifier-Baseline is Meta-Baseline with a fixed scale."""

import jax.numpy as jnp
import pytest
from small import relative
from small_episode import logits_of, made

import cxgrad_jax as cx

pytestmark = pytest.mark.usefixtures("double_precision")


def test_classifier_baseline_is_meta_baseline_with_a_fixed_scale():
    ours, params = made(cx.learners.classifier_baseline)
    theirs, others = made(cx.learners.meta_baseline)
    assert others.keys() - params.keys() == {"scale"}
    assert relative(logits_of(ours, params), logits_of(theirs, params | {"scale": jnp.float64(10.0)})) < 1e-13
