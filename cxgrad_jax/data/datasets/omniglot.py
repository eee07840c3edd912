"""Omniglot (Lake et al., 2015): 1,623 handwritten characters with 20 images each, split as by Vinyals et al. (2016)."""

from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import facts
from cxgrad_jax.data.datasets.archives import Files, Index, require
from cxgrad_jax.data.datasets.images import ink_pixels

FACTS = facts.Facts(
    title="Omniglot (Lake et al., 2015), the class split of Vinyals et al. (2016); ink is 255, paper 0",
    classes=(1028, 172, 423),
    images="32,460 (20 a class)",
    train_images=20_560,
    image_size=28,
    channels=1,
    resize="grey, then Pillow BICUBIC",
    origin="https://github.com/brendenlake/omniglot",
    archives=(
        facts.Archive(
            "images_background.zip",
            9_464_212,
            "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
            "https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip",
        ),
        facts.Archive(
            "images_evaluation.zip",
            6_462_886,
            "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
            "https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip",
        ),
    ),
)
IMAGES_PER_CLASS = 20

pixels = ink_pixels


def class_lists() -> dict[str, list[str]]:
    """The characters of every split, such as "Angelic/character01"."""
    return {
        split: [f"{alphabet}/character{number:02d}" for alphabet, numbers in alphabets.items() for number in numbers]
        for split, alphabets in facts.class_lists("omniglot").items()
    }


def index(files: Files, image_size: int) -> Index:
    """Reads ``images_background.zip`` and ``images_evaluation.zip``. Images are inverted: ink is 255."""
    images: defaultdict[str, dict[str, Any]] = defaultdict(dict)
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
