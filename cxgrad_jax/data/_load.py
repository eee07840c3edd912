"""Prepared data sets on disk: where they lie, and how their images are opened.

A data set lies in ``DATA_DIR/NAME/IMAGE_SIZE/VERSION``: ArrayRecord files and what describes them, which
``tfds.builder_from_directory`` reads, and beside them ``images_{train,val,test}.npy``, uint8 ``[N, H, W, C]`` in the
same order, by class, with ``images.json``, which ``load`` reads. The folder gets this name only when it is complete.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from cxgrad_jax.data._store import SPLITS, ImageStore
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.errors import UserError

INDEX = "images.json"

# What reading damaged files of a prepared data set may raise.
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError)


def default_data_dir() -> Path:
    """The folder of all prepared data sets: ``$CXGRAD_DATA_DIR``, or ``~/.cache/cxgrad_jax`` where it is unset."""
    return Path(os.environ.get("CXGRAD_DATA_DIR") or "~/.cache/cxgrad_jax").expanduser()


def prepared_dir(name: str, image_size: int | None = None, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where a data set lies, or will lie, once prepared. A name outside of the catalogue is the user's own."""
    facts = catalogue.CATALOGUE.get(name, catalogue.CATALOGUE["image_folder"])
    root = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    return root / name / str(image_size or facts.image_size) / facts.version


def command(name: str, image_size: int | None = None, data_dir: str | os.PathLike[str] | None = None) -> str:
    """The command line that prepares a data set, to be pasted into a shell."""
    facts = catalogue.CATALOGUE.get(name)
    words = ["python", "-m", "data_prep"]
    if facts is None or name == "image_folder":
        words += ["image_folder", "--source", "DIR"] + (["--as_name", name] if facts is None else [])
    else:
        words += [name]
        if facts.downloadable:
            words += ["--download"]
        elif facts.archives:
            words += ["--archive", *(archive.name for archive in facts.archives)]
    if image_size is not None:
        words += ["--image_size", str(image_size)]
    if data_dir is not None:
        words += ["--data_dir", str(data_dir)]
    return shlex.join(words)


def array_path(directory: Path, split: str) -> Path:
    return directory / f"images_{split}.npy"


def write_index(directory: Path, class_sizes: dict[str, dict[str, int]], source: list[str]) -> None:
    """Writes what ``load`` needs beside the arrays.

    Args:
      directory: holds the ``images_{split}.npy``.
      class_sizes: by split and class name, the number of images, in the order of the arrays.
      source: the files or folders that the images came from.
    """
    index = {"class_sizes": class_sizes, "source": source}
    (directory / INDEX).write_text(json.dumps(index), encoding="utf-8")


def read_index(directory: Path) -> dict[str, Any]:
    """Reads what ``write_index`` wrote; raises one of ``DAMAGE`` where it is missing or damaged."""
    index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    if not isinstance(index, dict) or set(index.get("class_sizes", ())) != set(SPLITS):
        raise ValueError(f"{INDEX} does not list the classes of {', '.join(SPLITS)}")
    return index


def open_store(directory: Path, split: str) -> ImageStore:
    """Opens the images of one split as a read-only memory map.

    Raises:
      One of ``DAMAGE``: a file is missing, is cut off, or does not fit the others.
    """
    class_sizes = read_index(directory)["class_sizes"][split]
    path = array_path(directory, split)
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    offsets = np.concatenate([[0], np.cumsum(list(class_sizes.values()))]).astype(np.int32)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != offsets[-1]:
        raise ValueError(f"{path.name} is {images.dtype} {images.shape}, expected uint8 ({offsets[-1]}, H, W, C)")
    return ImageStore(images, offsets, tuple(class_sizes), split=split)


def load(
    name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None, image_size: int | None = None
) -> ImageStore:
    """Opens one split of a prepared data set.

    The order is fixed: class names sorted, and the images of a class sorted by their file names. ``glyphs`` needs no
    archive and is prepared on its first use.

    Args:
      name: one of ``NAMES``, or the name that ``prepare("image_folder", as_name=...)`` gave to the user's own images.
      split: "train", "val" or "test"; their classes are disjoint.
      data_dir: the folder of prepared data sets; ``default_data_dir()`` unless given.
      image_size: the height and width that were prepared; the data set's usual size unless given.

    Returns:
      An ImageStore whose images are a read-only memory map, uint8 ``[N, image_size, image_size, channels]``.

    Raises:
      UserError: the split or the data set is unknown, not prepared at this size, or damaged; it tells the command that
        mends this.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    directory = prepared_dir(name, image_size, data_dir)
    if name not in catalogue.CATALOGUE and not directory.parent.parent.is_dir():
        catalogue.facts(name)  # raises, and says what names there are
    if not directory.is_dir():
        if name != "glyphs":
            sizes = sorted(path.parent.parent.name for path in directory.parent.parent.glob(f"*/*/{INDEX}"))
            also = f" (there are sizes {', '.join(sizes)})" if sizes else ""
            raise UserError(f"{name} is not prepared in {directory}{also}: run `{command(name, image_size, data_dir)}`")
        from cxgrad_jax.data._prepare import prepare

        prepare(name, data_dir=data_dir, image_size=image_size)
    try:
        return open_store(directory, split)._replace(name=name)
    except DAMAGE as error:
        raise UserError(
            f"{directory} is damaged ({error}): run `{command(name, image_size, data_dir)}` to prepare it again"
        ) from error
