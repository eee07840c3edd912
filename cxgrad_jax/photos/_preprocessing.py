"""From a photo's file to the pixels that a backbone takes: one function for every path."""

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cxgrad_jax.arguments import as_array, as_path, check_kind, check_whole, is_whole
from cxgrad_jax.data.datasets.archives import IMAGE_BYTES
from cxgrad_jax.data.datasets.images import open_image, shown
from cxgrad_jax.errors import UserError, reason

LONGEST = 1 << 16  # no JPEG file is longer, in pixels; what is longer is shrunk before it is padded
STRIP = 1 << 24  # the most pixels of a padded photo that are in memory at once
GREY = (127, 127, 127)  # around a photo that is padded
VIEWS = {  # the part of a photo that becomes the square
    "middle": "the largest square in the middle",
    "whole": "the whole photo, on grey where it is not square",
}


class Preprocessing(NamedTuple):
    """What happens to a photo before the backbone. It is a part of every saved classifier.

    Attributes:
      size: the height and width of a view in pixels.
      views: some of ``VIEWS``. The features of a photo are the mean over its views.
      channels: 3, or 1 for grey.
      mean: the mean that is subtracted from each channel of images in [0, 1].
      deviation: the standard deviation by which each channel is then divided.
    """

    size: int
    views: tuple[str, ...] = ("middle",)
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)


def plain(preprocessing: Preprocessing) -> Preprocessing:
    """The same in numbers and tuples of Python, as a file holds them.

    Raises:
      UserError: a field has a value that cannot be used.
    """
    check_kind("preprocessing", preprocessing, Preprocessing._fields, "cx.photos.Preprocessing(size, ...)")
    size, views, channels, mean, deviation = preprocessing
    check_whole("size", size)
    if not is_whole(channels) or channels not in (1, 3):
        raise UserError(f"channels is {channels!r}; expected 3, or 1 for grey")
    some = (views,) if isinstance(views, str) else tuple(views) if isinstance(views, Iterable) else ()
    if not some or not all(isinstance(view, str) and view in VIEWS for view in some):
        raise UserError(f"views is {views!r}; expected some of {', '.join(VIEWS)}")
    mean, deviation = _numbers("mean", mean, channels), _numbers("deviation", deviation, channels)
    if not all(deviation):
        raise UserError(f"deviation is {deviation!r}; expected no 0, since pixels are divided by it")
    return Preprocessing(int(size), tuple(map(str, some)), int(channels), mean, deviation)


def _numbers(name: str, value: Any, channels: int) -> tuple[float, ...]:
    array = np.atleast_1d(np.asarray(as_array(name, value)))
    numeric = array.dtype.kind in "fiu" and array.ndim == 1 and np.isfinite(array).all()
    if not numeric or len(array) not in (1, channels):
        shown = " ".join(repr(value).split())
        raise UserError(f"{name} is {shown}; expected one finite number, or one for each of {channels} channels")
    return tuple(map(float, array))


def read_photo(path: Path, at_least: int) -> Image.Image:
    """Reads a photo as a viewer shows it: in RGB, turned upright, with transparent parts on white.

    Args:
      path: the file.
      at_least: while a large JPEG file is decoded, it is not shrunk below this number of pixels of its shorter side.

    Raises:
      UserError: the file cannot be read, or is not an image.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise UserError(f"{path} is not a file but a folder, a pipe or a device; replace or remove it")
        if status.st_size > IMAGE_BYTES:
            raise UserError(f"{path} has {status.st_size:,} bytes; make it smaller than {IMAGE_BYTES:,} or remove it")
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
    return shown(open_image(raw, str(path), at_least))


def digest_of(path: Path) -> str:
    """SHA-256 of a photo's bytes as hexadecimal digits, by which the photo is known again under another name.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None


def views_of(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """The views of a photo, resized with Pillow's BICUBIC: uint8 ``[views, size, size, channels]``."""
    if preprocessing.channels == 1:
        image = image.convert("L")
    size = (preprocessing.size, preprocessing.size)
    makers = {"middle": _middle, "whole": _whole}
    views = [makers[view](image, preprocessing.size) for view in preprocessing.views]
    return np.stack([np.asarray(view).reshape(*size, preprocessing.channels) for view in views])


def read_views(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Makes ``views_of`` the photo in a file: uint8 ``[views, size, size, channels]``.

    Raises:
      UserError: the file cannot be read, is not an image, or takes more memory than there is.
    """
    with _memory_for(path):
        return views_of(read_photo(path, 2 * preprocessing.size), preprocessing)


def thumbnail(path: str | os.PathLike[str], side: int = 240) -> bytes:
    """The whole photo as the bytes of a small JPEG file, whose longer side has at most ``side`` pixels.

    Raises:
      UserError: the file cannot be read, is not an image, or takes more memory than there is.
    """
    path = as_path("path", path)
    with _memory_for(path):
        image = read_photo(path, side)
        image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


@contextmanager
def _memory_for(path: Path) -> Iterator[None]:
    """Names the photo that memory does not suffice for. The others may still be read."""
    try:
        yield
    except MemoryError:
        raise UserError(f"{path} takes more memory than there is; make it smaller or remove it") from None


def _middle(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    square = Image.new(image.mode, (side, side))
    square.paste(image, (-((width - side) // 2), -((height - side) // 2)))  # crop would warn of a large photo
    return square.resize((size, size), Image.Resampling.BICUBIC)


def _whole(image: Image.Image, size: int) -> Image.Image:
    """The photo on a grey square, resized.

    The square of a very long photo does not fit into memory. Pillow resizes each row first and then each column, so
    the rows are padded and resized in strips. The pixels are those of the resized square.
    """
    longest = max(image.size)
    if longest > LONGEST:
        width, height = (max(1, side * LONGEST // longest) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    (width, height), side = image.size, max(image.size)
    left, top, rows = (side - width) // 2, (side - height) // 2, max(1, STRIP // side)
    grey = GREY if image.mode == "RGB" else GREY[0]
    narrow = Image.new(image.mode, (size, side), grey)
    for start in range(0, height, rows):
        strip = Image.new(image.mode, (side, min(rows, height - start)), grey)
        strip.paste(image, (left, -start))
        narrow.paste(strip.resize((size, strip.height), Image.Resampling.BICUBIC), (0, top + start))
    return narrow.resize((size, size), Image.Resampling.BICUBIC)
