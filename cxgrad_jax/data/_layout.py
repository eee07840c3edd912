"""The files of a prepared data set.

They are in the folder ``DATA_DIR/NAME/IMAGE_SIZE/VERSION``, which gets this name only when it is complete.
``tfds.builder_from_directory`` reads the ArrayRecord files and their descriptions. ``load`` reads the arrays
``images_{train,val,test}.npy``, uint8 ``[N, H, W, C]`` in the same order, by class, and ``images.json``.
"""

import json
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from cxgrad_jax.arguments import as_path, check_whole
from cxgrad_jax.data._store import SPLITS, ImageStore, offsets_of
from cxgrad_jax.data.datasets import catalogue

INDEX = "images.json"
OWN_NAME = re.compile("[a-z][a-z0-9_]*")  # the names that the user's own images may have


def default_data_dir() -> Path:
    """The folder of all prepared data sets: ``$CXGRAD_DATA_DIR``, or ``~/.cache/cxgrad_jax`` if that is unset.

    Without a home folder it is ``cxgrad_jax`` in the system's temporary folder, and a warning says so.
    """
    if os.environ.get("CXGRAD_DATA_DIR"):
        return as_path("CXGRAD_DATA_DIR", os.environ["CXGRAD_DATA_DIR"])
    try:
        return Path.home() / ".cache" / "cxgrad_jax"
    except RuntimeError:
        directory = Path(tempfile.gettempdir(), "cxgrad_jax")
        message = "there is no home folder: prepared data lie in %s, unless CXGRAD_DATA_DIR names another folder"
        logging.log_first_n(logging.WARNING, message, 1, directory)
        return directory


def location(name: str, image_size: int | None = None, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a data set, prepared or not. A name outside of the catalogue is the user's own.

    Raises:
      UserError: ``name`` is not a string or cannot be a name, ``image_size`` is not a whole number, or ``data_dir`` is
        not a path.
    """
    catalogue.check_name(name)
    if not OWN_NAME.fullmatch(name):
        catalogue.facts(name)  # raises, and says what names there are
    if image_size is not None:
        check_whole("image_size", image_size)
    facts = catalogue.CATALOGUE.get(name, catalogue.CATALOGUE["image_folder"])
    root = default_data_dir() if data_dir is None else as_path("data_dir", data_dir)
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


def write_index(
    directory: Path, class_sizes: dict[str, dict[str, int]], source: list[str], fingerprint: str | None = None
) -> None:
    """Writes the index that ``load`` needs beside the arrays.

    Args:
      directory: the folder of the arrays ``images_{split}.npy``.
      class_sizes: the number of images by split and class name, in the order of the arrays. A data set may lack
        splits.
      source: the files or folders that the images came from.
      fingerprint: the fingerprint of the user's own folder, by which a later ``prepare`` sees whether it has changed.
    """
    index = {"class_sizes": class_sizes, "source": source, "fingerprint": fingerprint}
    (directory / INDEX).write_text(json.dumps(index), encoding="utf-8")


def read_index(directory: Path) -> dict[str, Any]:
    """Reads what ``write_index`` wrote; raises any exception if it is missing or damaged."""
    index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    class_sizes = index["class_sizes"]
    if not class_sizes or not set(class_sizes) <= set(SPLITS) or not all(class_sizes.values()):
        raise ValueError(f"{INDEX} does not list the classes of {', '.join(SPLITS)}")
    return index


def open_store(directory: Path, split: str, name: str = "") -> ImageStore:
    """Opens the images of one split as a read-only memory map.

    Raises:
      Any exception: a file is missing, is cut off, or does not fit the others.
    """
    class_sizes = read_index(directory)["class_sizes"][split]
    path = array_path(directory, split)
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    offsets = offsets_of(list(class_sizes.values()))
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != offsets[-1]:
        raise ValueError(f"{path.name} is {images.dtype} {list(images.shape)}; expected uint8 [{offsets[-1]}, H, W, C]")
    if (np.diff(offsets) < 1).any():
        raise ValueError(f"{INDEX} holds a class without images")
    return ImageStore(images, offsets, tuple(class_sizes), name, split)
