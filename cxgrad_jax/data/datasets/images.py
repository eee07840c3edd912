"""From the bytes of an image file to uint8 pixels."""

import io
import re
import threading
import warnings

import numpy as np
from PIL import Image, ImageOps

from cxgrad_jax.errors import UserError, reason

# The formats that image data sets have in practice, whatever a file's suffix says. Pillow's other decoders are not
# used.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_FILTERS = threading.Lock()  # all threads share the filters of warnings


def open_image(raw: bytes | np.ndarray, name: str, at_least: int | None = None) -> Image.Image:
    """Decodes an image file completely. An animation gives its first picture.

    16 bits of grey become 8, as a viewer shows them.

    Args:
      raw: the file's bytes, or uint8 pixels ``[H, W, 3]``.
      name: the name of the file in error messages.
      at_least: if given, a JPEG decoder halves large images until height or width would fall below this number of
        pixels, which is several times faster.

    Raises:
      UserError: the bytes are not an image of the ``FORMATS``, are cut off, or have more pixels than Pillow reads.
    """
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw)
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as many pixels are an error
            image = Image.open(io.BytesIO(raw), formats=FORMATS)
        if at_least:
            image.draft(None, (at_least, at_least))  # pyright: ignore[reportArgumentType]
        image.load()
        return _eight_bits(image) if image.mode.startswith(("I", "F")) else image
    except Image.UnidentifiedImageError as error:
        cause = f"it is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image" if raw else "it is empty"
        raise UserError(f"{name} is not a readable image ({cause}); replace or remove it") from error
    except Image.DecompressionBombError as error:  # its message has the number of pixels first
        number = re.search(r"\d+", str(error))
        found = f"{int(number[0]) / 1e6:,.0f} million" if number else "too many"
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UserError(f"{name} has {found} pixels; make it smaller than {limit:.0f} million or remove it") from error
    except Exception as error:  # a damaged image raises exceptions of many kinds
        raise UserError(f"{name} is not a readable image ({reason(error)}); replace or remove it") from error


def rgb_pixels(image: Image.Image, image_size: int) -> np.ndarray:
    """Resizes with Pillow's BICUBIC, unless the size is right already, and then converts to RGB.

    The order is that of the official CxGrad code. It matters for palette images, which Pillow resizes by nearest
    neighbour.

    Returns:
      uint8 ``[image_size, image_size, 3]``.
    """
    return np.asarray(resized(image, image_size).convert("RGB"))


def shown_pixels(image: Image.Image, image_size: int) -> np.ndarray:
    """The pixels as an image viewer shows them (``shown``), resized with Pillow's BICUBIC.

    Returns:
      uint8 ``[image_size, image_size, 3]``.
    """
    return np.asarray(resized(shown(image), image_size))


def shown(image: Image.Image) -> Image.Image:
    """The image in RGB as an image viewer shows it.

    Its EXIF orientation turns it, and its transparent parts become white. Palette, one-bit and CMYK images become RGB.
    """
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a viewer shows an image with damaged EXIF data, too
        pass
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def ink_pixels(image: Image.Image, image_size: int) -> np.ndarray:
    """Converts dark strokes on white paper to grey ink: ink is 255 and paper 0.

    It becomes grey first, because Pillow would resize a one-bit image by nearest neighbour and lose thin strokes.

    Returns:
      uint8 ``[image_size, image_size, 1]``.
    """
    return 255 - np.asarray(resized(image.convert("L"), image_size))[:, :, None]


def resized(image: Image.Image, image_size: int) -> Image.Image:
    """Resizes an image to ``image_size`` with Pillow's BICUBIC. An image of this size stays as it is."""
    size = (image_size, image_size)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def resized_array(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """Resizes uint8 pixels ``[H, W, C]``, with C of 1, 3 or 4."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise UserError(f"an image is {pixels.dtype} {list(pixels.shape)}; expected uint8 [H, W, 1, 3 or 4] to resize")
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(resized(image, image_size)).reshape(image_size, image_size, pixels.shape[2])


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16 bits of grey, 0 to 65535, to 8. The grey that a PNG declares as transparent stays so."""
    grey = np.asarray(image)
    scaled = Image.fromarray(np.clip(np.rint(grey / 257), 0, 255).astype(np.uint8))
    clear = image.info.pop("transparency", None)
    if isinstance(clear, int):
        scaled.putalpha(Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8)))
    scaled.info = image.info  # it holds the orientation
    return scaled
