"""The augmentation of training images in pre-training: random crops, mirror images and colours."""

import jax
import jax.numpy as jnp

AUGMENTATIONS = ("none", "crop", "crop_colour")
PADDING = 8  # an image is padded by one eighth of its side before it is cropped
COLOUR = 0.4  # brightness, contrast and saturation are changed by up to this share


def augmented(key: jax.Array, images: jax.Array, augmentation: str) -> jax.Array:
    """Changes images at random, each by its own draws.

    Args:
      key: the key of the draws.
      images: uint8 ``[N, H, W, C]``.
      augmentation: ``"none"`` changes nothing. ``"crop"`` pads an image with black by one eighth of its side, crops it
        to the old size, and mirrors it in one case of two. ``"crop_colour"`` first multiplies brightness, contrast and
        saturation by factors that are uniform in 0.6 to 1.4.

    Returns:
      float32 ``[N, H, W, C]`` in [0, 1].
    """
    floats = images.astype(jnp.float32) / 255
    if augmentation == "none":
        return floats

    def one(key, image):
        crop_key, flip_key, colour_key = jax.random.split(key, 3)
        if augmentation == "crop_colour":
            image = _recoloured(colour_key, image)
        margin = image.shape[0] // PADDING
        padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
        corner = jax.random.randint(crop_key, (2,), 0, 2 * margin + 1)
        image = jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)
        return jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)

    return jax.vmap(one)(jax.random.split(key, len(images)), floats)


def _recoloured(key: jax.Array, image: jax.Array) -> jax.Array:
    brightness, contrast, saturation = jax.random.uniform(key, (3,), image.dtype, 1 - COLOUR, 1 + COLOUR)
    image = jnp.clip(image * brightness, 0, 1)
    image = jnp.clip(_blend(image, jnp.mean(_grey(image)), contrast), 0, 1)
    return jnp.clip(_blend(image, _grey(image), saturation), 0, 1)


def _blend(image: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
    return share * image + (1 - share) * other


def _grey(image: jax.Array) -> jax.Array:
    """The luma of a colour image by ITU-R 601-2, as Pillow has it, ``[H, W, 1]``. A grey image stays as it is."""
    if image.shape[-1] != 3:
        return image
    return jnp.sum(image * jnp.asarray([0.299, 0.587, 0.114], image.dtype)[None, None], axis=-1, keepdims=True)
