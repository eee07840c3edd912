"""What a prediction may see: with the support set's statistics, nothing of the other query images."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small import WAY, first_params, relative
from small_networks import EPISODE, NETWORKS, OTHERS, SHORT, WITH_RUNNING_AVERAGES, build

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, batch_statistics
from cxgrad_jax.models import _fused

pytestmark = pytest.mark.usefixtures("double_precision")

every_learner = pytest.mark.parametrize("name", cx.learners.NAMES)


def predictor(learner, dtype: Any = np.float64):
    """``query images -> logits`` after adaptation to the episode."""
    support = EPISODE.support_images.astype(dtype)
    params = first_params(learner, support)
    adapted = jax.jit(learner.adapt)(params, support, EPISODE.support_labels)
    predict = jax.jit(learner.predict)
    return lambda images: np.asarray(predict(params, adapted, images.astype(dtype)))


@pytest.mark.slow_except("conv4-cxgrad", "flax-proto_net")
@every_learner
@pytest.mark.parametrize("network", NETWORKS)
def test_a_prediction_sees_its_own_image_alone(name, network):
    images = EPISODE.query_images
    predict = predictor(build(name, network))
    together = predict(images)
    replaced = np.concatenate([images[:1], OTHERS[1:]])
    np.testing.assert_array_equal(predict(replaced)[0], together[0])
    assert relative(predict(images[:1])[0], together[0]) < 1e-12
    transductive = predictor(build(name, network, "query"))
    assert relative(transductive(replaced)[0], transductive(images)[0]) > 1e-10


@pytest.mark.slow_except("cxgrad", "proto_net")
@every_learner
def test_in_float32_another_batch_size_changes_rounding_only(name):
    predict = predictor(build(name, "conv4"), np.float32)
    together = predict(EPISODE.query_images)
    assert relative(predict(EPISODE.query_images[:1])[0], together[0]) < 1e-6


@pytest.mark.slow_except("flax-maml")
@every_learner
@pytest.mark.parametrize("network", ["conv4", "flax"])
def test_the_statistics_are_the_support_set_s_at_the_adapted_parameters(name, network):
    if name == "metal":
        pytest.skip("its inner loop sees the query images, and by 'support' it is another one")
    # The support set as the query set has these very statistics, so both modes agree on it.
    ours, theirs = (predictor(build(name, network, mode))(EPISODE.support_images) for mode in ("support", "query"))
    assert relative(ours, theirs) < 1e-11


@pytest.mark.slow_except("proto_net")
@every_learner
def test_training_with_them_has_the_gradient_of_its_loss(name):
    learner = build(name, "conv4")
    params = first_params(learner, EPISODE.support_images)
    loss, _ = jax.jit(learner.loss)(params, EPISODE)
    logits = predictor(learner)(EPISODE.query_images)
    if name not in ("matching_net", "relation_net"):
        expected = -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(len(logits)), EPISODE.query_labels])
        assert float(loss) == pytest.approx(float(expected), rel=1e-11)
    if name in (
        "alfa",
        "l2f",
        "cxgrad",
        "cxgrad_informed",
        "unicorn_maml",
    ):  # whose outer gradient holds some inner gradients constant
        return
    flat, restore = ravel_pytree(params)
    at = jax.jit(lambda x: learner.loss(restore(x), EPISODE, iteration=3)[0])
    gradient, h = jax.jit(jax.grad(at))(flat), 1e-6
    direction = np.random.default_rng(0).normal(size=flat.shape) * (np.abs(flat) + 1e-3)
    numeric = (at(flat + h * direction) - at(flat - h * direction)) / (2 * h)
    assert float(gradient @ direction) == pytest.approx(float(numeric), rel=5e-5)


@pytest.mark.slow_except("proto_net")
@every_learner
def test_without_batch_normalisation_both_are_one(name):
    if name == "metal":
        pytest.skip("its inner loop sees the query images, and by 'support' it is another one")
    learners = [
        getattr(cx.learners, name)(cx.models.Conv4(WAY, 4, norm="layer"), query_statistics=mode, **SHORT.get(name, {}))
        for mode in ("support", "query")
    ]
    ours, theirs = (predictor(learner)(EPISODE.query_images) for learner in learners)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["proto_net", "matching_net"])
def test_joint_normalisation_has_no_statistics_of_the_support_set(name):
    with pytest.raises(cx.UserError, match="query_statistics is 'support', but joint_normalisation") as error:
        getattr(cx.learners, name)(NETWORKS["conv4"], joint_normalisation=True, query_statistics="support")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in cx.learners.NAMES if name not in WITH_RUNNING_AVERAGES])
def test_running_averages_are_refused_where_a_method_has_none(name):
    words = "query_statistics is 'running'; expected 'query' or 'support', for this method has no running averages"
    with pytest.raises(cx.UserError, match=words) as error:
        build(name, "conv4", "running")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_fused_operation_takes_and_tells_statistics_too(monkeypatch):
    model = NETWORKS["conv4"]
    params = model.init(jax.random.key(0), EPISODE.support_images)["params"]
    whole = batch_statistics(model, params, EPISODE.support_images)
    logits = apply_model(model, params, EPISODE.query_images, statistics=whole)
    monkeypatch.setattr(_fused, "PART_BYTES", 1000)
    assert relative(batch_statistics(model, params, EPISODE.support_images), whole) < 1e-11
    np.testing.assert_allclose(apply_model(model, params, EPISODE.query_images, statistics=whole), logits, rtol=1e-12)


def test_init_and_plain_application_know_nothing_of_statistics():
    for model in (NETWORKS["conv4"], NETWORKS["resnet12"]):
        variables = jax.jit(model.init)(jax.random.key(0), EPISODE.support_images)
        assert variables.keys() == {"params"}
        apply = jax.jit(model.apply)
        other = apply(variables, OTHERS)
        _, found = jax.jit(partial(model.apply, mutable=["batch_stats"]))(variables, EPISODE.support_images)
        assert relative(apply({**variables, **found}, OTHERS), other) > 1e-6
