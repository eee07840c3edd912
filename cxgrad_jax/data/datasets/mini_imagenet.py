"""miniImageNet: 100 classes of ImageNet, 600 images each, by the file lists of Ravi & Larochelle (2017)."""

import functools
from pathlib import PurePosixPath

import numpy as np

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import facts
from cxgrad_jax.data.datasets.archives import Files, Index, Member, require
from cxgrad_jax.data.datasets.images import rgb_pixels
from cxgrad_jax.data.datasets.pickles import field, read_dict, row_numbers, text
from cxgrad_jax.errors import UserError

FACTS = facts.Facts(
    title="miniImageNet, the classes and files of Ravi & Larochelle (2017)",
    classes=(64, 16, 20),
    images="60,000 (600 a class)",
    train_images=38_400,
    image_size=84,
    channels=3,
    resize=facts.RESIZE_RGB,
    origin="https://github.com/twitter-research/meta-learning-lstm (file lists; the images are ImageNet's)",
    archives=(facts.Archive("images.zip", "about 3 GB"),),
    also=(
        "mini_imagenet_full_size.tar.bz2, which the official CxGrad code uses (MAML++ published it)",
        "mini-imagenet-cache-train.pkl mini-imagenet-cache-val.pkl mini-imagenet-cache-test.pkl, all three; their "
        "images are 84 x 84 already",
    ),
    folder="a folder that holds the files of Ravi's lists (n0153282900000005.jpg, ...) or the pickles at any depth",
)
IMAGES_PER_CLASS = 600
PICKLES = {split: f"mini-imagenet-cache-{split}.pkl" for split in SPLITS}

pixels = rgb_pixels


def file_lists() -> dict[str, dict[str, list[str]]]:
    """The file names of Ravi's lists by split and synset. A name is the synset and a number of eight digits."""
    return {
        split: {synset: [f"{synset}{number:08d}.jpg" for number in numbers] for synset, numbers in classes.items()}
        for split, classes in facts.class_lists("mini_imagenet").items()
    }


def index(files: Files, image_size: int) -> Index:
    """Reads the three pickles, or an archive or a folder with the images at any depth, in which copies differ."""
    by_name = {PurePosixPath(name).name: reader for name, reader in files.items()}
    if any(name in by_name for name in PICKLES.values()):
        return _index_pickles(by_name)
    lists = file_lists()
    wanted = [name for split in SPLITS for names in lists[split].values() for name in names]
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(wanted)} images of miniImageNet are missing, the first is {missing[0]}: "
            "wrong or incomplete archive; expected the file names of Ravi's lists"
        )
    return {
        split: {synset: {name: by_name[name] for name in names} for synset, names in lists[split].items()}
        for split in SPLITS
    }


def _index_pickles(by_name: dict[str, Member]) -> Index:
    """Reads dicts of ``image_data``, uint8 ``[N, 84, 84, 3]``, and ``class_dict``, the rows of each synset."""
    lists = file_lists()
    found: Index = {}
    for split, name in PICKLES.items():
        expected = f"expected {', '.join(PICKLES.values())}, all three"
        if name not in by_name:
            raise UserError(f"{name} is missing; {expected}")
        content = read_dict(by_name[name], expected)
        images, rows_of = field(content, "image_data", expected), field(content, "class_dict", expected)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (84, 84, 3):
            raise UserError(f"{name}: image_data is not uint8 [N, 84, 84, 3]; {expected}")
        if not isinstance(rows_of, dict) or {text(synset) for synset in rows_of} != set(lists[split]):
            raise UserError(f"{name}: class_dict does not name the {len(lists[split])} {split} classes of Ravi's lists")
        found[split] = {}
        for synset, rows in rows_of.items():
            numbers = row_numbers(rows, len(images))
            if numbers is None:
                raise UserError(f"{name}: the rows of {text(synset)} do not fit image_data; {expected}")
            readers = {f"{row:05d}": functools.partial(np.asarray, images[row]) for row in numbers}
            require(readers, IMAGES_PER_CLASS, text(synset), expected)
            found[split][text(synset)] = readers
    return found
