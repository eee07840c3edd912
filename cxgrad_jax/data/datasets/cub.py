"""CUB: the 200 bird species of Caltech-UCSD Birds-200-2011, split as CxGrad does (100, 50 and 50 classes)."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.data.datasets.archives import Files
from cxgrad_jax.data.datasets.builder import FewShotBuilder, ImageSize, Index
from cxgrad_jax.errors import UserError

IMAGES = 11_788


def class_lists() -> dict[str, list[str]]:
    """The species of every split, such as "001.Black_footed_Albatross"."""
    return catalogue.class_lists("cub")


class Cub(FewShotBuilder, skip_registration=True):
    """Reads ``CUB_200_2011.tgz``: ``CUB_200_2011/images/001.Black_footed_Albatross/*.jpg`` and so on."""

    BUILDER_CONFIGS = [ImageSize(84)]

    def _index(self, files: Files) -> Index:
        images: defaultdict[str, dict[str, Callable[[], Any]]] = defaultdict(dict)
        for name, reader in files.items():
            path = PurePosixPath(name)
            if path.suffix.lower() == ".jpg" and path.parent.parent.name == "images":
                images[path.parent.name][path.name] = reader
        lists = class_lists()
        for split in SPLITS:
            for species in lists[split]:
                if not images[species]:
                    raise UserError(
                        f"class {species} is missing: wrong or incomplete archive; expected CUB_200_2011.tgz "
                        f"with CUB_200_2011/images/{species}/*.jpg"
                    )
        found = sum(len(images[species]) for split in SPLITS for species in lists[split])
        if found != IMAGES:
            raise UserError(f"CUB has {found} images, expected {IMAGES}: incomplete archive, get it again")
        return {split: {species: images[species] for species in lists[split]} for split in SPLITS}
