"""EfficientNet-Lite without its weights: sizes, labels, what it refuses, learning."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cxgrad_jax as cx


def shapes(model, size=64) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, 3), np.float32))["params"]


@pytest.mark.parametrize(
    ("variant", "parameters", "blocks"), [(0, 4_652_008, 16), (1, 5_416_680, 21), (2, 6_092_072, 21)]
)
def test_parameter_counts_are_the_published_ones(variant, parameters, blocks):
    params = shapes(cx.models.EfficientNetLite(variant=variant))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    assert sum(name.startswith("block_") for name in params) == blocks


def test_feature_maps_are_a_32nd_of_the_image_rounded_up():
    model = cx.models.EfficientNetLite(num_classes=5)
    images = np.zeros((2, 65, 32, 3), np.float32)
    maps = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, method="feature_maps"))[0]
    assert maps.shape == (2, 3, 1, 1280)
    logits = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images))[0]
    assert logits.shape == (2, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_running_averages_make_a_prediction_independent_of_the_others():
    model = cx.models.EfficientNetLite(num_classes=3)
    images = jax.random.uniform(jax.random.key(1), (4, 64, 64, 3), np.float64)  # fewer values let rounding grow
    params = model.init(jax.random.key(0), images)["params"]
    _, found = model.apply({"params": params}, images, mutable=["batch_stats"])
    predict = jax.jit(lambda images: model.apply({"params": params, **found}, images))
    np.testing.assert_allclose(predict(images)[:1], predict(images[:1]), rtol=1e-12)
    by_batch = jnp.asarray(model.apply({"params": params}, images[:1]))
    assert not np.allclose(predict(images)[:1], by_batch)


@pytest.mark.slow
def test_a_learner_takes_it():
    learner = cx.learners.maml(cx.models.EfficientNetLite(num_classes=2), num_steps=1)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    params = jax.eval_shape(learner.init, jax.random.key(0), images)
    episode = cx.Episode(images, np.arange(2), images, np.arange(2))
    gradient = jax.eval_shape(jax.grad(lambda params: learner.loss(params, episode)[0]), params)
    assert jax.tree.map(np.shape, gradient) == jax.tree.map(np.shape, params)
    assert learner.spec["model"]["class"] == "EfficientNetLite" and not learner.spec["undescribed"]


def test_bad_fields_and_images_are_refused():
    with pytest.raises(cx.UserError, match="variant is 3; expected one of 0, 1, 2"):
        cx.models.EfficientNetLite(variant=3)
    with pytest.raises(cx.UserError, match="at least 32"):
        shapes(cx.models.EfficientNetLite(), size=16)
    with pytest.raises(cx.UserError, match="4 channels"):
        cx.models.EfficientNetLite().init(jax.random.key(0), np.zeros((1, 32, 32, 4), np.float32))
