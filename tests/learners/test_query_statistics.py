"""What a prediction may see: with the support set's statistics, nothing of the other query images."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small import WAY, first_params, make_episode
from test_identities import relative

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, batch_statistics
from cxgrad_jax.models import _fused

pytestmark = pytest.mark.usefixtures("double_precision")

EPISODE = make_episode()
OTHERS = make_episode(1).query_images
SHORT = {
    "cxgrad": {"context_dim": 4, "num_steps": 2},
    "maml_plus_plus": {"num_steps": 2},
    "modgrad": {"context_dim": 4},
}
SHORT |= {"cavia": {"context_dim": 4}, "cxgrad_explicit": SHORT["cxgrad"], "baseline_plus_plus": {"num_epochs": 2}}
WITH_RUNNING_AVERAGES = (
    "baseline_plus_plus", "classifier_baseline", "matching_net", "meta_baseline", "metaoptnet", "proto_net", "r2d2",
    "relation_net", "rfs",
)  # fmt: skip
every_learner = pytest.mark.parametrize("name", cx.learners.NAMES)


class Flax(nn.Module):
    """A network of flax's own layers, with what every learner asks of a backbone."""

    num_classes: int = WAY
    film_features: int = 4

    def setup(self):
        self.conv = [nn.Conv(4, (3, 3)), nn.Conv(4, (3, 3))]
        # Momentum, and running averages that nobody asked for, must not matter.
        self.norm = [nn.BatchNorm(use_running_average=False, momentum=0.5), nn.BatchNorm(False, use_scale=False)]
        self.head = nn.Dense(self.num_classes)

    def feature_maps(self, x, film=None):
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = nn.max_pool(nn.relu(norm(conv(x))), (2, 2), (2, 2))
        return x if film is None else x * film[0] + film[1]

    def embed(self, x, film=None):
        return self.feature_maps(x, film).reshape(len(x), -1)

    def __call__(self, x, film=None):
        return self.head(self.embed(x, film))


NETWORKS = {
    "conv4": cx.models.Conv4(WAY, features=4),
    "resnet12": cx.models.ResNet12(WAY, channels=(2, 2, 4, 4)),
    "flax": Flax(),
}


def build(name, network, query_statistics="support", **further: Any):
    hyper_parameters: dict[str, Any] = {**SHORT.get(name, {}), **further}
    if name == "modgrad" and network in ("flax", "resnet12"):
        hyper_parameters["param_labels"] = lambda path, leaf: "adapted" if leaf.ndim == 4 else "meta"
    return getattr(cx.learners, name)(NETWORKS[network], query_statistics=query_statistics, **hyper_parameters)


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
