"""Conv4 and ResNet12: sizes, initialisation, which kernels are scaled."""

from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import cxgrad_jax as cx
from cxgrad_jax.learners import default_labels, split_by_label


def shapes(module_or_init, size=84):
    images = np.zeros((2, size, size, 3), np.float32)
    return jax.eval_shape(module_or_init, jax.random.key(0), images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_parameter_counts_are_the_official_ones():
    model = cx.models.Conv4(num_classes=5)
    params = shapes(cx.learners.cxgrad(model).init)
    assert count(params["model"]) == 69_893
    assert count(params["generator"]) == 10_504
    assert shapes(cx.learners.maml(model).init).keys() == {"model"}


def test_resnet12_adapts_18_tensors_and_scales_12():
    fast, frozen, scaled = split_by_label(shapes(cx.models.ResNet12(num_classes=5).init)["params"], default_labels)
    assert len(fast) == 18 and len(scaled) == 12
    assert not any("shortcut" in path for path in scaled) and all("norm" in path for path in frozen)
    assert scaled[:4] == [f"block_{block}/conv_{i}/kernel" for block, i in ((0, 0), (0, 1), (0, 2), (1, 0))]


@pytest.mark.parametrize(("pooling", "side"), [("alfa", 11), ("every_block", 5)])
def test_resnet12_pools_as_it_says(pooling, side):
    model = cx.models.ResNet12(num_classes=5, channels=(2, 2, 2, 2), pooling=pooling)
    _, state = jax.eval_shape(
        lambda key, x: model.init_with_output(key, x, capture_intermediates=True),
        jax.random.key(0), np.zeros((1, 84, 84, 3), np.float32),
    )  # fmt: skip
    last = state["intermediates"]["block_3"]["__call__"][0].shape[1]
    assert (last if pooling == "alfa" else last // 2) == side  # "every_block" pools once more behind the last block


@pytest.mark.parametrize(("size", "side"), [(84, 9), (32, 3)])
def test_r2d2_has_the_features_of_two_blocks(size, side):
    model = cx.models.R2D2Conv4(num_classes=5)
    params = shapes(model.init, size)["params"]
    assert params["head"]["kernel"].shape == (side * side * (384 + 512), 5)
    assert params["block_3"]["conv"]["kernel"].shape == (3, 3, 384, 512) and "bias" in params["block_0"]["conv"]


@pytest.mark.slow
def test_relu_behind_a_block_leaves_the_slope_inside_it():
    images = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
    leaky, mixed = (
        cx.models.ResNet12(5, (2, 2, 2, 2), negative_slope=0.1, relu_output=relu_output)
        for relu_output in (False, True)
    )
    params = leaky.init(jax.random.key(0), images)
    maps, others = (np.asarray(model.apply(params, images, method="feature_maps")) for model in (leaky, mixed))
    assert maps.min() < 0 == others.min() and not np.allclose(np.maximum(maps, 0), others)


@pytest.mark.parametrize("slope", [0.0, 0.01])
def test_the_activation_has_pytorch_s_derivative_at_zero(slope):
    model = cx.models.Conv4(3, features=2, norm="layer", negative_slope=slope)
    images = np.zeros((1, 16, 16, 3), np.float32)
    params = model.init(jax.random.key(0), images)["params"]
    gradient = jax.grad(lambda params: model.apply({"params": params}, images)[0, 0])(params)  # pyright: ignore
    # A zero image leaves zeros in front of each activation, and the last bias passes through one alone.
    expected = slope * np.asarray(params["head"]["kernel"])[:, 0]
    np.testing.assert_allclose(gradient["block_3"]["norm"]["bias"], expected, rtol=1e-6)


def test_initialisation_has_the_official_bounds():
    params = cx.models.Conv4(num_classes=5).init(jax.random.key(0), np.zeros((1, 84, 84, 3), np.float32))["params"]
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    bounds = {"block_0/conv/kernel": 0.1143, "block_1/conv/kernel": 0.0833, "head/kernel": 0.0706}
    for path, bound in bounds.items():
        assert bound * 0.98 < np.max(np.abs(flat[path])) < bound + 1e-4
    assert not np.any(flat["head/bias"]) and np.all(flat["block_0/norm/scale"] == 1)


def test_paths_are_in_forward_order():
    tree = {f"block_{i}": {"kernel": np.zeros((3, 3, 1, 1))} for i in (10, 2, 1)}
    assert split_by_label(tree, default_labels)[2] == ["block_1/kernel", "block_2/kernel", "block_10/kernel"]
