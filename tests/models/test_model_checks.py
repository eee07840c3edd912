"""What networks refuse, in one line that names the value: fields when made, images when called or traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxgrad_jax import UserError
from cxgrad_jax.models import Conv4, R2D2Conv4, RelationConv4, RelationHead, ResNet12

CHANNELS = {"channels": (2, 2, 2, 2)}
SMALL = {Conv4: {"features": 4}, RelationConv4: {"features": 4}, R2D2Conv4: CHANNELS, ResNet12: CHANNELS}


@pytest.mark.parametrize(
    ("network", "fields"),
    [
        (Conv4, {"norm": "instance"}),
        (Conv4, {"use_bias": "no"}),
        (Conv4, {"precision": "low"}),
        (Conv4, {"image_statistics": "cifar"}),
        (Conv4, {"features": 0}),
        (Conv4, {"features": 12, "norm": "group"}),
        (Conv4, {"num_classes": 0}),
        (Conv4, {"negative_slope": -0.1}),
        (Conv4, {"negative_slope": float("nan")}),
        (Conv4, {"norm_epsilon": -1e-5}),
        (Conv4, {"dtype": "int8"}),
        (Conv4, {"dtype": "half precision"}),
        (RelationConv4, {"negative_slope": -0.1}),
        (ResNet12, {"negative_slope": -0.1}),
        (R2D2Conv4, {"channels": 64}),
        (ResNet12, {"pooling": "none"}),
        (ResNet12, {"relu_output": "yes"}),
        (ResNet12, {"channels": (64, 128, 256)}),
        (ResNet12, {"channels": (64, 128, 256, 0)}),
        (RelationHead, {"negative_slope": -0.1}),
        (RelationHead, {"hidden": 0}),
    ],
)
def test_a_field_is_refused_by_name_and_value(network, fields):
    name, value = list(fields.items())[0]
    if network is not RelationHead:
        fields = {"num_classes": 5, **fields}
    with pytest.raises(UserError) as refused:
        network(**fields)
    assert str(refused.value).startswith(f"{name} is {value!r}; expected ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("network", SMALL)
@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((2, 3, 32, 32), "float32", "the channels last; images.transpose"),
        ((32, 32, 3), "float32", "images[None]"),
        ((2, 3, 3, 3), "float32", "at least"),
        ((0, 32, 32, 3), "float32", "[0, 32, 32, 3]"),
        ((2, 32, 32, 0), "float32", "[2, 32, 32, 0]"),
        ((2, 32, 32, 3), "uint8", "uint8"),
        ((2, 32, 32, 4), "float32", "4 channels"),
    ],
)
def test_images_are_refused_while_tracing(network, shape, dtype, words):
    model, images = network(5, image_statistics="imagenet", **SMALL[network]), jnp.zeros(shape, dtype)
    for call in (model.init, jax.jit(model.init)):
        with pytest.raises(UserError) as refused:
            call(jax.random.key(0), images)
        assert str(refused.value).startswith("images have") and words in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("network", SMALL)
def test_the_smallest_images_are_just_enough(network):
    model = network(5, **SMALL[network])
    side = model.smallest_image
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, side, side, 3)))
    with pytest.raises(UserError, match=f"at least {side}"):
        model.init(jax.random.key(0), jnp.zeros((2, side - 1, side, 3)))


def test_images_that_do_not_fit_the_parameters_are_refused():
    model, images = Conv4(5, features=4), np.zeros((2, 32, 32, 3), np.float32)
    params = jax.jit(model.init)(jax.random.key(0), images)
    with pytest.raises(UserError, match=r"block_0/conv/kernel has shape \[3, 3, 3, 4\].* need \[3, 3, 1, 4\]"):
        model.apply(params, images[..., :1])
    with pytest.raises(UserError, match=r"head/kernel has shape \[16, 5\].* need \[4, 5\]"):
        model.apply(params, images[:, :16, :16])


def test_the_relation_module_refuses_what_are_no_pairs():
    for shape in ((2, 5, 5, 3), (2, 10)):
        with pytest.raises(UserError, match=r"expected \[M, h, w, 2 C\]"):
            RelationHead().init(jax.random.key(0), jnp.zeros(shape))
