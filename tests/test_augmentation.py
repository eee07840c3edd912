"""Augmentation: each image by its own draws, in [0, 1], as float32."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SIZE

from cxgrad_jax.augmentation import augmented

IMAGES: Any = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("augmentation", ["none", "crop", "crop_colour"])
def test_an_augmented_image_depends_on_itself_and_the_key_alone(augmentation):
    key = jax.random.key(0)
    ours = augmented(key, IMAGES, augmentation)
    assert ours.shape == IMAGES.shape and ours.dtype == jnp.float32
    assert 0 <= ours.min() and ours.max() <= 1
    np.testing.assert_array_equal(ours, augmented(key, IMAGES, augmentation))
    others: Any = np.concatenate([IMAGES[:1], 255 - IMAGES[1:]])
    np.testing.assert_array_equal(augmented(key, others, augmentation)[0], ours[0])
    if augmentation != "none":
        assert not np.array_equal(ours, augmented(jax.random.key(1), IMAGES, augmentation))


def test_a_crop_is_a_part_of_the_image_mirrored_or_not():
    (image,) = augmented(jax.random.key(3), IMAGES[:1], "crop")
    margin = SIZE // 8
    padded = np.pad(IMAGES[0] / 255, ((margin, margin), (margin, margin), (0, 0)))
    parts = [padded[i : i + SIZE, j : j + SIZE] for i in range(2 * margin + 1) for j in range(2 * margin + 1)]
    assert any(np.allclose(image, each, atol=1e-6) for part in parts for each in (part, part[:, ::-1]))


def test_grey_images_are_cropped_and_recoloured_too():
    assert augmented(jax.random.key(0), IMAGES[..., :1], "crop_colour").shape == (12, SIZE, SIZE, 1)


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["none", "crop", "crop_colour"])
def test_augmented_images_are_float32_in_double_precision_too(augmentation, double_precision):
    assert augmented(jax.random.key(0), IMAGES, augmentation).dtype == np.float32
