"""What a data set says of itself before any of it is read."""

import json
from importlib import resources
from typing import Any, NamedTuple

RESIZE_RGB = "Pillow BICUBIC, then RGB"


class Archive(NamedTuple):
    """A file that a publisher offers.

    Attributes:
      name: the file's name.
      size: its size in words or, where ``sha256`` is known, in bytes.
      sha256: hexadecimal digest, or None where the publisher names none.
      url: where it is downloaded from without an account, or None.
    """

    name: str
    size: int | str
    sha256: str | None = None
    url: str | None = None


class Facts(NamedTuple):
    """A data set in numbers.

    Attributes:
      title: one line: the images and whose class split.
      classes: the number of classes of train, val and test, or None where the user's files decide.
      images: the number of images in words.
      image_size: the height and width that ``load`` gives unless told otherwise.
      channels: 3 for RGB, 1 for grey.
      resize: how an image of another size is brought to ``image_size``.
      origin: the publisher's page.
      archives: the files to give to ``python -m data_prep NAME --archive``.
      also: other files that ``--archive`` takes in their place, one line for each set of files.
      folder: what ``--source`` may name for this data set, or None where only archives are read.
      version: of the prepared files; a change of their content changes it.
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

    @property
    def downloadable(self) -> bool:
        return bool(self.archives) and all(archive.url for archive in self.archives)


def class_lists(name: str) -> dict[str, Any]:
    """The published class lists of data set ``name`` by split: train, val and test, class names sorted."""
    text = resources.files("cxgrad_jax.data.datasets").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def size_text(size: int | str) -> str:
    """A size in words: bytes are told exactly, for comparing with a file at hand."""
    return f"{size:,} bytes" if isinstance(size, int) else size
