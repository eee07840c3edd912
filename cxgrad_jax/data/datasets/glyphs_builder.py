"""The builder of the embedded data set; `glyphs.py` draws it."""

import functools
from typing import Any

import numpy as np

from cxgrad_jax.data.datasets import glyphs
from cxgrad_jax.data.datasets.archives import Files
from cxgrad_jax.data.datasets.builder import FewShotBuilder, ImageSize, Index


class Glyphs(FewShotBuilder, skip_registration=True):
    """Draws its images, so needs no archive."""

    BUILDER_CONFIGS = [ImageSize(glyphs.DEFAULT_IMAGE_SIZE)]

    def _index(self, files: Files) -> Index:
        index: Index = {}
        for split, characters in glyphs.load_splits().items():
            next(glyphs.examples(split, self.image_size))  # refuses a size or a font that will not do
            index[split] = {
                glyphs.class_name(character): {
                    f"{number:02d}_{glyphs.face_of(number)}.png": functools.partial(
                        glyphs.draw, character, number, self.image_size
                    )
                    for number in range(glyphs.IMAGES_PER_CLASS)
                }
                for character in characters
            }
        return index

    def _pixels(self, raw: Any, name: str) -> np.ndarray:
        return raw
