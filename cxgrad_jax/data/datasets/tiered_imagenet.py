"""tieredImageNet (Ren et al., 2018): all training images of 608 ImageNet classes, split by super-category."""

import functools
from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import facts
from cxgrad_jax.data.datasets.archives import Files, Index, Member, tar_files
from cxgrad_jax.data.datasets.images import rgb_pixels
from cxgrad_jax.data.datasets.pickles import field, read_dict, read_pickle, row_numbers, strings
from cxgrad_jax.errors import UserError

FACTS = facts.Facts(
    title="tieredImageNet (Ren et al., 2018), classes split by super-category",
    classes=(351, 97, 160),
    images="779,165 (448,695 + 124,261 + 206,209)",
    train_images=448_695,
    image_size=84,
    channels=3,
    resize=facts.RESIZE_RGB,
    origin="https://image-net.org/download-images (ILSVRC 2012 training images; needs an account)",
    archives=(facts.Archive("ILSVRC2012_img_train.tar", "about 138 GiB"),),
    also=(
        "tiered_imagenet.tar, which the official CxGrad code uses; its images are 84 x 84 already",
        "train_images_png.pkl train_labels.pkl val_images_png.pkl val_labels.pkl test_images_png.pkl test_labels.pkl, "
        "all six or a tar of them (Ren et al.); their images are 84 x 84 already; memory must hold the largest",
    ),
    folder="a folder of synset folders (n01530575/*.JPEG, ...) at any depth, or of the pickles",
)
IMAGES = {"train": 448_695, "val": 124_261, "test": 206_209}

pixels = rgb_pixels


def class_lists() -> dict[str, list[str]]:
    """The synsets of every split."""
    return facts.class_lists("tiered_imagenet")


def index(files: Files, image_size: int) -> Index:
    """Reads ``ILSVRC2012_img_train.tar`` (one tar for each synset in a tar), or synset folders, or the pickles."""
    by_name = {PurePosixPath(name).name: reader for name, reader in files.items()}
    if any(f"{split}_labels.pkl" in by_name for split in SPLITS):
        loaded: dict[str, list[Any]] = {}
        found = {split: _index_pickles(by_name, split, loaded) for split in SPLITS}
    else:
        found = _index_images(files)
    for split, classes in found.items():
        number = sum(map(len, classes.values()))
        if number != IMAGES[split]:
            raise UserError(
                f"tieredImageNet's {split} split has {number} images; expected {IMAGES[split]}: "
                "wrong or incomplete archive"
            )
    return found


def _index_images(files: Files) -> Index:
    lists = class_lists()
    synsets = {synset for split in SPLITS for synset in lists[split]}
    images: defaultdict[str, dict[str, Callable[[], Any]]] = defaultdict(dict)
    for name, member in tqdm(files.items(), desc="listing", unit=" files", disable=None):
        path = PurePosixPath(name)
        if path.suffix == ".tar" and path.stem in synsets:
            images[path.stem] = dict(tar_files(member.open(), member.name))
        elif path.parent.name in synsets and path.suffix.lower() in (".jpeg", ".jpg"):
            images[path.parent.name][path.name] = member
    for split in SPLITS:
        for synset in lists[split]:
            if not images[synset]:
                raise UserError(
                    f"class {synset} is missing: wrong or incomplete archive; expected ILSVRC2012_img_train.tar "
                    f"(a tar of {synset}.tar and others) or a folder with {synset}/*.JPEG and others"
                )
    return {split: {synset: images[synset] for synset in lists[split]} for split in SPLITS}


def _index_pickles(
    by_name: dict[str, Member], split: str, loaded: dict[str, list[Any]]
) -> dict[str, dict[str, Callable[[], Any]]]:
    """Reads ``label_specific``, the class of each row of the pickled list of PNG files, and ``label_specific_str``."""
    expected = f"expected {{{','.join(SPLITS)}}}_{{images_png,labels}}.pkl, all six"
    for name in (f"{split}_images_png.pkl", f"{split}_labels.pkl"):
        if name not in by_name:
            raise UserError(f"{name} is missing; {expected}")
    content = read_dict(by_name[f"{split}_labels.pkl"], expected)
    names = strings(field(content, "label_specific_str", expected)) or []
    labels = row_numbers(field(content, "label_specific", expected), len(names))
    if labels is None:
        raise UserError(f"{split}_labels.pkl: label_specific does not number label_specific_str; {expected}")
    if len(names) != len(class_lists()[split]):
        raise UserError(f"{split}_labels.pkl names {len(names)} classes, not {len(class_lists()[split])}; {expected}")
    if set(names) != set(class_lists()[split]):  # the names are words, and ImageNet has some of them twice
        names = [f"{split}{label:03d} {name}" for label, name in enumerate(names)]
    read = functools.partial(_read_row, loaded, by_name[f"{split}_images_png.pkl"], len(labels), expected)
    return {
        name: {f"{row:06d}.png": functools.partial(read, int(row)) for row in np.flatnonzero(labels == label)}
        for label, name in enumerate(names)
    }


def _read_row(loaded: dict[str, list[Any]], member: Member, number: int, expected: str, row: int) -> bytes:
    """The PNG file of one row. ``loaded`` holds only the last pickle, because memory hardly holds all three."""
    if member.name not in loaded:
        loaded.clear()
        content = read_pickle(member, expected)
        if not isinstance(content, list) or len(content) != number:
            raise UserError(f"{member.name} is not a list of {number} images; {expected}")
        loaded[member.name] = content
    image = loaded[member.name][row]
    return image if isinstance(image, bytes) else np.asarray(image, np.uint8).tobytes()
