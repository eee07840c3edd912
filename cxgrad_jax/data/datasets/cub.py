"""CUB: the 200 bird species of Caltech-UCSD Birds-200-2011, split as CxGrad does (100, 50 and 50 classes)."""

from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import facts
from cxgrad_jax.data.datasets.archives import Files, Index
from cxgrad_jax.data.datasets.images import rgb_pixels
from cxgrad_jax.errors import UserError

FACTS = facts.Facts(
    title="Caltech-UCSD Birds-200-2011, the class split of CxGrad",
    classes=(100, 50, 50),
    images="11,788 (41 to 60 a class)",
    image_size=84,
    channels=3,
    resize=facts.RESIZE_RGB,
    origin="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    archives=(
        facts.Archive(
            "CUB_200_2011.tgz",
            1_150_585_339,
            "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        ),
    ),
)
IMAGES = 11_788

pixels = rgb_pixels


def class_lists() -> dict[str, list[str]]:
    """The species of every split, such as "001.Black_footed_Albatross"."""
    return facts.class_lists("cub")


def index(files: Files, image_size: int) -> Index:
    """Reads ``CUB_200_2011.tgz``: ``CUB_200_2011/images/001.Black_footed_Albatross/*.jpg`` and so on."""
    images: defaultdict[str, dict[str, Any]] = defaultdict(dict)
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
        raise UserError(f"CUB has {found} images; expected {IMAGES}: wrong or incomplete archive")
    return {split: {species: images[species] for species in lists[split]} for split in SPLITS}
