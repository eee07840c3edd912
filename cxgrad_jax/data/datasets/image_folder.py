"""Your own images: a folder ``root/{train,val,test}/class/*.jpg``, as the official CxGrad code has it."""

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from absl import logging

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import facts
from cxgrad_jax.data.datasets.archives import Files, Index, folder_files
from cxgrad_jax.data.datasets.images import SUFFIXES, shown_pixels
from cxgrad_jax.errors import UserError

FACTS = facts.Facts(
    title="your own images: root/{train,val,test}/class/*.jpg; name it with --as_name",
    classes=None,
    images="all there are",
    image_size=84,
    channels=3,
    resize="turned upright, on white, RGB, then Pillow BICUBIC",
    origin="your own",
    folder="a folder laid out as root/{train,val,test}/class/*.{bmp,gif,jpeg,jpg,png,webp}; for a test set alone "
    "root/test/class/* or root/class/*",
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")  # the tab is not one; every line end is
LAYOUT = "{train,val,test}/class/*.jpg, or test/class/*.jpg or class/*.jpg for a test set alone"

pixels = shown_pixels


def index(files: Files, image_size: int) -> Index:
    """Sorts the images of a folder by split and class.

    A folder that has none of ``train``, ``val`` and ``test`` is a folder of classes. It becomes a test set, like a
    folder with ``test`` alone. Suffixes may be in capitals. A warning counts the files that are left out, except hidden
    ones.
    """
    present = {PurePosixPath(name).parts[0] for name in files if "/" in name}
    splits = [split for split in SPLITS if split in present]
    flat = not splits
    found: Index = {split: {} for split in splits or ["test"]}
    left_out, with_folders = [], set()
    for name, reader in files.items():
        *folders, file = ("test", *name.split("/")) if flat else name.split("/")
        if any(folder.startswith(".") for folder in folders):
            continue
        in_class = len(folders) >= 2 and folders[0] in found
        images = found[folders[0]].setdefault(printable(folders[1]), {}) if in_class else {}
        if in_class and len(folders) == 2 and is_image(file):
            images[printable(file)] = reader
        elif file and not file.startswith("."):
            left_out.append(name)
        if in_class and len(folders) > 2:
            with_folders.add(printable(folders[1]))
    for split, classes in found.items():
        for class_name, images in classes.items():
            if not images and flat and class_name in with_folders:
                raise UserError(
                    f"{class_name} holds folders and no images; if it is a split, its name must be one of "
                    f"{', '.join(SPLITS)}, in small letters"
                )
            if not images:
                where = class_name if flat else f"{split}/{class_name}"
                raise UserError(f"{where} holds no {', '.join(SUFFIXES)}; add some or remove it")
    if not any(found.values()):
        raise UserError(f"the folder holds no class of images; expected {LAYOUT}")
    for split in SPLITS:
        if split not in found and set(found) != {"test"}:
            raise UserError(f"{split} is missing; expected {LAYOUT}")
    if flat:
        logging.warning("there is no train, val or test folder: the %d folders are test classes", len(found["test"]))
    if left_out:
        first = ", ".join(map(printable, sorted(left_out)[:3])) + (", ..." if len(left_out) > 3 else "")
        logging.warning("%d files are left out: %s; expected %s", len(left_out), first, LAYOUT)
    return found


def is_image(name: str) -> bool:
    """Whether a file counts as an image: it has the suffix of an image, and it is not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def fingerprint(root: Path) -> str:
    """A digest of the names, sizes and times of change of all images of a folder.

    Raises:
      UserError: a link makes one folder two classes or two splits, or a folder cannot be read.
    """

    def refuse(folder: Path, first: Path) -> None:  # a later walk tells the user of links further down
        names, others = (path.relative_to(root).parts for path in (folder, first))
        if len(names) <= 2 and others and not any(name.startswith(".") for name in names):
            raise UserError(f"{folder} is the same folder as {first}; few-shot splits share no class: remove one")

    digest = hashlib.sha256()
    for name in sorted(name for name in folder_files(root, refuse) if is_image(name)):
        try:
            status = (root / name).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # a broken link
            state = "missing"
        digest.update(os.fsencode(name) + f"\0{state}\0".encode())
    return digest.hexdigest()


def printable(name: str) -> str:
    """A file name as one line of UTF-8. Other bytes, which old zips leave, and what moves a cursor become escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
