"""Omniglot (Lake et al., 2015): 1,623 handwritten characters, 20 images each, split as Vinyals et al. (2016) did."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.data.datasets.archives import Files
from cxgrad_jax.data.datasets.builder import FewShotBuilder, ImageSize, Index, require
from cxgrad_jax.data.datasets.images import ink_pixels, open_image

IMAGES_PER_CLASS = 20


def class_lists() -> dict[str, list[str]]:
    """The characters of every split, such as "Angelic/character01"."""
    return {
        split: [f"{alphabet}/character{number:02d}" for alphabet, numbers in alphabets.items() for number in numbers]
        for split, alphabets in catalogue.class_lists("omniglot").items()
    }


class Omniglot(FewShotBuilder, skip_registration=True):
    """Reads ``images_background.zip`` and ``images_evaluation.zip``; the grey images are inverted: ink is 255."""

    BUILDER_CONFIGS = [ImageSize(28)]

    def _index(self, files: Files) -> Index:
        images: defaultdict[str, dict[str, Callable[[], Any]]] = defaultdict(dict)
        for name, reader in files.items():
            path = PurePosixPath(name)
            # macOS puts "__MACOSX/…/._name.png" beside the images of some zips.
            if path.suffix.lower() == ".png" and not path.name.startswith("."):
                images["/".join(path.parts[-3:-1])][path.name] = reader
        lists = class_lists()
        for split in SPLITS:
            for name in lists[split]:
                where = "expected images_background.zip and images_evaluation.zip, both"
                require(images[name], IMAGES_PER_CLASS, name, where)
        return {split: {name: images[name] for name in lists[split]} for split in SPLITS}

    def _pixels(self, raw: Any, name: str) -> np.ndarray:
        return ink_pixels(open_image(raw, name), self.image_size)
