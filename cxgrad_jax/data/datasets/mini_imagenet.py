"""miniImageNet: 100 classes of ImageNet, 600 images each, by the file lists of Ravi & Larochelle (2017)."""

from pathlib import PurePosixPath

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.data.datasets.archives import Files
from cxgrad_jax.data.datasets.builder import FewShotBuilder, ImageSize, Index
from cxgrad_jax.errors import UserError


def file_lists() -> dict[str, dict[str, list[str]]]:
    """By split and synset, the file names of Ravi's lists: the synset and a number of eight digits."""
    return {
        split: {synset: [f"{synset}{number:08d}.jpg" for number in numbers] for synset, numbers in classes.items()}
        for split, classes in catalogue.class_lists("mini_imagenet").items()
    }


class MiniImagenet(FewShotBuilder, skip_registration=True):
    """Reads ``images.zip`` or a folder; the files may lie at any depth, for copies differ in this."""

    BUILDER_CONFIGS = [ImageSize(84)]

    def _index(self, files: Files) -> Index:
        by_name = {PurePosixPath(name).name: reader for name, reader in files.items()}
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
