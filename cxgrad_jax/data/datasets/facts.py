"""The facts about a data set that are known before any of it is read."""

import json
from importlib import resources
from typing import Any, NamedTuple

RESIZE_RGB = "Pillow BICUBIC, then RGB"


class Archive(NamedTuple):
    """A file that a publisher offers.

    Attributes:
      name: the file's name.
      size: its size in words or, if ``sha256`` is known, in bytes.
      sha256: its hexadecimal digest, or None if the publisher names none.
      url: the address that it can be downloaded from without an account, or None.
    """

    name: str
    size: int | str
    sha256: str | None = None
    url: str | None = None


class Facts(NamedTuple):
    """A data set in numbers.

    Attributes:
      title: one line that names the images and the author of the class split.
      classes: the numbers of classes of train, val and test, or None if the user's files decide.
      images: the number of images in words.
      image_size: the usual height and width of ``load``.
      channels: 3 for RGB, 1 for grey.
      resize: how an image of another size is brought to ``image_size``.
      origin: the publisher's page.
      archives: the files to give to ``python -m data_prep NAME --archive``.
      also: other files that ``--archive`` takes in their place, one line for each set of files.
      folder: what ``--source`` may name for this data set, or None if only archives are read.
      version: the version of the prepared files. A change of their content changes it.
      train_images: the number of training images, or None if it is known only from the files.
    """

    title: str
    classes: tuple[int, int, int] | None
    images: str
    image_size: int
    channels: int
    resize: str
    origin: str
    archives: tuple[Archive, ...] = ()
    also: tuple[str, ...] = ()
    folder: str | None = None
    version: str = "1.0.0"
    train_images: int | None = None

    @property
    def downloadable(self) -> bool:
        return bool(self.archives) and all(archive.url for archive in self.archives)


def class_lists(name: str) -> dict[str, Any]:
    """The published class lists of data set ``name`` by split: train, val and test, class names sorted."""
    text = resources.files("cxgrad_jax.data.datasets").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def size_text(size: int | str) -> str:
    """A size in words. Bytes are given exactly, to be compared with a file at hand."""
    return f"{size:,} bytes" if isinstance(size, int) else size
