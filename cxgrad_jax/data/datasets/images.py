"""From the bytes of an image file to uint8 pixels."""

import io

import numpy as np
from PIL import Image

from cxgrad_jax.errors import UserError

# What image data sets hold in practice, whatever a file's suffix says; the rarer decoders of Pillow stay shut.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")


def open_image(data: bytes, name: str) -> Image.Image:
    """Decodes an image file completely.

    Args:
      data: the file's bytes.
      name: how an error message names the file.

    Raises:
      UserError: the bytes are no image of the ``FORMATS``, are cut off, or have more than 8 bits a channel.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is not a readable image ({error}); replace or remove it") from error
    if image.mode.startswith(("I", "F")):
        raise UserError(f"{name} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
    return image


def rgb_pixels(image: Image.Image, image_size: int) -> np.ndarray:
    """Resizes with Pillow's BICUBIC, unless the size is right already, and then converts to RGB.

    The order is that of the official CxGrad code. It matters for palette images, which Pillow resizes by nearest
    neighbour.

    Returns:
      uint8 ``[image_size, image_size, 3]``.
    """
    return np.asarray(resized(image, image_size).convert("RGB"))


def ink_pixels(image: Image.Image, image_size: int) -> np.ndarray:
    """Converts dark strokes on white paper to grey ink: ink is 255 and paper 0.

    Grey comes first here, because Pillow would resize a one-bit image by nearest neighbour and lose thin strokes.

    Returns:
      uint8 ``[image_size, image_size, 1]``.
    """
    return 255 - np.asarray(resized(image.convert("L"), image_size))[:, :, None]


def resized(image: Image.Image, image_size: int) -> Image.Image:
    """The image at ``image_size`` by Pillow's BICUBIC; the same image where the size is right already."""
    size = (image_size, image_size)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
