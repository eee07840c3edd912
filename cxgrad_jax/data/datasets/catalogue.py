"""The list of all data sets. Each is a module of its own."""

import difflib
from typing import Any, Protocol

import numpy as np
from PIL import Image

from cxgrad_jax.data.datasets import (
    cifar_fs,
    cub,
    glyphs,
    image_folder,
    mini_imagenet,
    omniglot,
    tiered_imagenet,
)
from cxgrad_jax.data.datasets.archives import Files, Index
from cxgrad_jax.data.datasets.facts import Facts
from cxgrad_jax.errors import UserError


class DataSet(Protocol):
    """The interface of the module of a data set."""

    FACTS: Facts

    def index(self, files: Files, image_size: int) -> Index:
        """Chooses the images of each split from the files of all archives; raises UserError if any is missing."""
        ...

    def pixels(self, image: Image.Image, image_size: int) -> np.ndarray:
        """Turns a decoded image into uint8 ``[image_size, image_size, channels]``."""
        ...


DATASETS: dict[str, DataSet] = {
    "mini_imagenet": mini_imagenet,
    "tiered_imagenet": tiered_imagenet,
    "cifar_fs": cifar_fs,
    "cub": cub,
    "omniglot": omniglot,
    "glyphs": glyphs,
    "image_folder": image_folder,
}

CATALOGUE: dict[str, Facts] = {name: module.FACTS for name, module in DATASETS.items()}


def check_name(name: Any) -> None:
    """Refuses a value that cannot name a data set."""
    if not isinstance(name, str):
        raise UserError(f"name is {name!r}; expected the name of a data set, such as 'glyphs'")


def facts(name: str) -> Facts:
    """The facts of a data set; raises UserError for a name that is not in the catalogue."""
    check_name(name)
    if name not in CATALOGUE:
        close = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(
            f"unknown data set {name!r}; {hint}expected one of {', '.join(CATALOGUE)}; your own images are prepared "
            "with `python -m data_prep image_folder --source DIR --as_name NAME`"
        )
    return CATALOGUE[name]
