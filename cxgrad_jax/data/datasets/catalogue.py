"""What is known of each data set before any of it is read: sizes, splits, archives and where they come from."""

import difflib
import json
from importlib import resources
from typing import Any, NamedTuple

from cxgrad_jax.errors import UserError


class Archive(NamedTuple):
    """A file that a publisher offers.

    Attributes:
      name: the file's name.
      size: its size in words or, where ``sha256`` is known, in bytes.
      sha256: hexadecimal digest, or None where the publisher names none.
      url: where it is downloaded from without an account, or None.
    """

    name: str
    size: int | str
    sha256: str | None = None
    url: str | None = None


class Facts(NamedTuple):
    """A data set in figures.

    Attributes:
      title: one line: the images and whose class split.
      classes: the number of classes of train, val and test, or None where the user's files decide.
      images: the number of images in words.
      image_size: the height and width that ``load`` gives unless told otherwise.
      channels: 3 for RGB, 1 for grey.
      resize: how an image of another size is brought to ``image_size``.
      origin: the publisher's page.
      archives: the files to give to ``python -m data_prep NAME --archive``.
      folder: what ``--source`` may name for this data set, or None where only archives are read.
      version: of the prepared files; a change of their content changes it.
    """

    title: str
    classes: tuple[int, int, int] | None
    images: str
    image_size: int
    channels: int
    resize: str
    origin: str
    archives: tuple[Archive, ...] = ()
    folder: str | None = None
    version: str = "1.0.0"

    @property
    def downloadable(self) -> bool:
        return bool(self.archives) and all(archive.url for archive in self.archives)


RESIZE_RGB = "Pillow BICUBIC, then RGB"

CATALOGUE: dict[str, Facts] = {
    "mini_imagenet": Facts(
        title="miniImageNet, the classes and files of Ravi & Larochelle (2017)",
        classes=(64, 16, 20),
        images="60,000 (600 a class)",
        image_size=84,
        channels=3,
        resize=RESIZE_RGB,
        origin="https://github.com/twitter-research/meta-learning-lstm (file lists; the images are ImageNet's)",
        archives=(Archive("images.zip", "about 3 GB"),),
        folder="a folder that holds the files of Ravi's lists (n0153282900000005.jpg, ...) at any depth",
    ),
    "tiered_imagenet": Facts(
        title="tieredImageNet (Ren et al., 2018), classes split by super-category",
        classes=(351, 97, 160),
        images="779,165 (448,695 + 124,261 + 206,209)",
        image_size=84,
        channels=3,
        resize=RESIZE_RGB,
        origin="https://image-net.org/download-images (ILSVRC 2012 training images; needs an account)",
        archives=(Archive("ILSVRC2012_img_train.tar", "about 138 GiB"),),
        folder="a folder of synset folders (n01530575/*.JPEG, ...)",
    ),
    "cifar_fs": Facts(
        title="CIFAR-FS (Bertinetto et al., 2019): CIFAR-100, training and test images together",
        classes=(64, 16, 20),
        images="60,000 (600 a class)",
        image_size=32,
        channels=3,
        resize=RESIZE_RGB,
        origin="https://www.cs.toronto.edu/~kriz/cifar.html",
        archives=(
            Archive(
                "cifar-100-python.tar.gz",
                169_001_437,
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            ),
        ),
    ),
    "cub": Facts(
        title="Caltech-UCSD Birds-200-2011, the class split of CxGrad",
        classes=(100, 50, 50),
        images="11,788 (41 to 60 a class)",
        image_size=84,
        channels=3,
        resize=RESIZE_RGB,
        origin="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        archives=(
            Archive(
                "CUB_200_2011.tgz",
                1_150_585_339,
                "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
            ),
        ),
    ),
    "omniglot": Facts(
        title="Omniglot (Lake et al., 2015), the class split of Vinyals et al. (2016); ink is 255, paper 0",
        classes=(1028, 172, 423),
        images="32,460 (20 a class)",
        image_size=28,
        channels=1,
        resize="grey, then Pillow BICUBIC",
        origin="https://github.com/brendenlake/omniglot",
        archives=(
            Archive(
                "images_background.zip",
                9_464_212,
                "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
                "https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip",
            ),
            Archive(
                "images_evaluation.zip",
                6_462_886,
                "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
                "https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip",
            ),
        ),
    ),
    "glyphs": Facts(
        title="Glyphs, the embedded data set: characters drawn with the fonts of matplotlib; needs no archive",
        classes=(182, 45, 57),
        images="8,520 (30 a class)",
        image_size=28,
        channels=3,
        resize="drawn at the size asked for",
        origin="drawn by cxgrad_jax.data.datasets.glyphs",
    ),
    "image_folder": Facts(
        title="your own images: root/{train,val,test}/class/*.{jpg,jpeg,png}; name it with --as_name",
        classes=None,
        images="all there are",
        image_size=84,
        channels=3,
        resize=RESIZE_RGB,
        origin="your own",
        folder="a folder laid out as root/{train,val,test}/class/*.{jpg,jpeg,png}",
    ),
}


def facts(name: str) -> Facts:
    """The facts of a data set; raises UserError for a name that is not in the catalogue."""
    if name not in CATALOGUE:
        close = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(
            f"unknown data set {name!r}: {hint}expected one of {', '.join(CATALOGUE)}; your own images are prepared "
            "with `python -m data_prep image_folder --source DIR --as_name NAME`"
        )
    return CATALOGUE[name]


def class_lists(name: str) -> dict[str, Any]:
    """The published class lists of data set ``name`` by split: train, val and test, class names sorted."""
    text = resources.files("cxgrad_jax.data.datasets").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)
