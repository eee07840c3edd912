"""Your own images: a folder ``root/{train,val,test}/class/*.{jpg,jpeg,png}``, as the official CxGrad code has it."""

from pathlib import PurePosixPath

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets.archives import Files
from cxgrad_jax.data.datasets.builder import FewShotBuilder, ImageSize, Index
from cxgrad_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFolder(FewShotBuilder, skip_registration=True):
    """Reads a folder. Suffixes may be in capitals; other files are left alone, and so are hidden ones."""

    BUILDER_CONFIGS = [ImageSize(84)]

    def _index(self, files: Files) -> Index:
        root = self.archives[0]
        index: Index = {}
        for split in SPLITS:
            if not (root / split).is_dir():
                raise UserError(f"{root / split} is missing; expected {root}/{{train,val,test}}/class/*.jpg")
            folders = (path for path in (root / split).iterdir() if path.is_dir() and path.name[0] != ".")
            index[split] = {folder.name: {} for folder in folders}
        for name, reader in files.items():
            path = PurePosixPath(name)
            if len(path.parts) == 3 and path.suffix.lower() in SUFFIXES and path.name[0] != ".":
                split, class_name, file = path.parts
                if class_name in index.get(split, {}):
                    index[split][class_name][file] = reader
        for split in SPLITS:
            for class_name, images in index[split].items():
                if not images:
                    raise UserError(f"{root / split / class_name} holds no .jpg, .jpeg or .png; add some or remove it")
        return index
