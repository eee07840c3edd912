"""Features of many photos, each computed once and alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cxgrad_jax.arguments import check_function, check_kind
from cxgrad_jax.errors import UserError
from cxgrad_jax.machine import cores
from cxgrad_jax.photos._backbones import Backbone, features_of
from cxgrad_jax.photos._folders import PathLike, paths_of
from cxgrad_jax.photos._preprocessing import plain, read_views

AHEAD = 8  # the number of photos that are read ahead while the network is at work


def each_photo(read: Callable[[Path], np.ndarray], paths: Sequence[Path]) -> Iterator[np.ndarray | UserError]:
    """Yields the result of ``read`` for each path, in order, or the error that it raises. Threads read ahead."""

    def attempt(path):
        try:
            return read(path)
        except UserError as error:
            return error

    with ThreadPoolExecutor(min(cores(), 4)) as threads:
        rest = iter(paths)
        waiting = [threads.submit(attempt, path) for path in islice(rest, AHEAD)]
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += [threads.submit(attempt, path) for path in islice(rest, 1)]
        finally:  # an interruption does not wait for photos that nobody needs
            threads.shutdown(wait=False, cancel_futures=True)


class Features(NamedTuple):
    """The arrays that are computed once for each photo. The rows of unreadable photos are NaN.

    Attributes:
      features: float32 ``[N, D]`` of length 1.
      histograms: colour histograms for a baseline, float32 ``[N, bins]``.
      errors: one error for each unreadable photo, in order.
    """

    features: np.ndarray
    histograms: np.ndarray
    errors: tuple[UserError, ...]


def all_features(
    backbone: Backbone, paths: PathLike | Iterable[PathLike], tick: Callable[[], None] = lambda: None
) -> Features:
    """Features and colour histograms of photos.

    Args:
      backbone: the backbone.
      paths: the paths of the photos.
      tick: a function that is called after each photo.

    Raises:
      UserError: an argument has the wrong type, or there is no path. A photo that cannot be read raises nothing.
    """
    check_kind("backbone", backbone, Backbone._fields, "a Backbone, such as cx.photos.backbone_of_learner gives")
    check_function("tick", tick, "a function without arguments")
    backbone, paths = backbone._replace(preprocessing=plain(backbone.preprocessing)), paths_of(paths)
    if not paths:
        raise UserError("paths is empty; expected at least one photo")
    rows: list[tuple[np.ndarray, np.ndarray] | None] = []
    errors: list[UserError] = []
    for views in each_photo(lambda path: read_views(path, backbone.preprocessing), paths):
        if isinstance(views, UserError):
            errors.append(views)
            rows.append(None)
        else:
            rows.append((features_of(backbone, views), colour_histogram(views[0])))
        tick()
    first = next((row for row in rows if row), (np.zeros(0), np.zeros(0)))
    blank = tuple(np.full_like(array, np.nan) for array in first)
    features, histograms = (np.stack([(row or blank)[part] for row in rows]) for part in (0, 1))
    return Features(features, histograms, tuple(errors))


def colour_histogram(pixels: np.ndarray) -> np.ndarray:
    """How often each of 8 hues x 4 saturations x 4 values occurs in uint8 ``[H, W, 1 or 3]``: float32 ``[128]``.

    They are the square roots of the shares, so that the vector has length 1.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB").convert("HSV")
    hue, saturation, value = (np.asarray(channel, np.int32) for channel in image.split())
    bins = (hue // 32) * 16 + (saturation // 64) * 4 + value // 64
    return np.sqrt(np.bincount(bins.ravel(), minlength=128) / bins.size).astype(np.float32)
