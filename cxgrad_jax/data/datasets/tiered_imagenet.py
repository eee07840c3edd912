"""tieredImageNet (Ren et al., 2018): all training images of 608 ImageNet classes, split by super-category."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.data.datasets.archives import Files, Span, tar_files
from cxgrad_jax.data.datasets.builder import FewShotBuilder, ImageSize, Index
from cxgrad_jax.errors import UserError

IMAGES = {"train": 448_695, "val": 124_261, "test": 206_209}


def class_lists() -> dict[str, list[str]]:
    """The synsets of every split."""
    return catalogue.class_lists("tiered_imagenet")


class TieredImagenet(FewShotBuilder, skip_registration=True):
    """Reads ``ILSVRC2012_img_train.tar``, a tar of one tar a synset, or a folder of synset folders."""

    BUILDER_CONFIGS = [ImageSize(84)]

    def _index(self, files: Files) -> Index:
        lists = class_lists()
        synsets = {synset for split in SPLITS for synset in lists[split]}
        images: defaultdict[str, dict[str, Callable[[], Any]]] = defaultdict(dict)
        for name, reader in files.items():
            path = PurePosixPath(name)
            if isinstance(reader, Span) and path.suffix == ".tar" and path.stem in synsets:
                images[path.stem] = dict(tar_files(reader))
            elif path.parent.name in synsets and path.suffix.lower() in (".jpeg", ".jpg"):
                images[path.parent.name][path.name] = reader
        for split in SPLITS:
            for synset in lists[split]:
                if not images[synset]:
                    raise UserError(
                        f"class {synset} is missing: wrong or incomplete archive; expected ILSVRC2012_img_train.tar "
                        f"(a tar of {synset}.tar and others) or a folder with {synset}/*.JPEG and others"
                    )
            found = sum(len(images[synset]) for synset in lists[split])
            if found != IMAGES[split]:
                raise UserError(
                    f"tieredImageNet's {split} split has {found} images, expected {IMAGES[split]}: incomplete archive"
                )
        return {split: {synset: images[synset] for synset in lists[split]} for split in SPLITS}
