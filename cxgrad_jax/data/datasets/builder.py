"""The base of all data sets' builders: tfds without TensorFlow, and the memory maps that training reads."""

import contextlib
import functools
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from cxgrad_jax.data import _load as prepared
from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.data.datasets.archives import Files, check_published, open_files
from cxgrad_jax.data.datasets.images import open_image, rgb_pixels
from cxgrad_jax.errors import UserError

Index = dict[str, dict[str, dict[str, Callable[[], Any]]]]
"""By split, class name and file name: a function that reads the image. Readers give what ``_pixels`` takes."""

SHARD_BYTES = 128 << 20


class ImageSize(tfds.core.BuilderConfig):
    """The configuration of a builder: the height and width of its images. Its name is the number."""

    def __init__(self, image_size: int):
        super().__init__(name=str(image_size), description=f"images of {image_size} x {image_size} pixels")
        self.image_size = image_size


# By itself, tfds's GeneratorBasedBuilder holds a whole split in memory, and needs TensorFlow from 1 GB on.
# ShardBasedBuilder, which comes first, writes the same generators shard by shard, in the order that they give.
class FewShotBuilder(tfds.core.ShardBasedBuilder, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes class-disjoint splits of uint8 images as ArrayRecord and, in the same order, as ``.npy`` arrays.

    A subclass names itself after its entry in the catalogue and implements ``_index``; it may override ``_pixels``.
    ``preparation.make_builder`` makes one for any image size.

    Attributes:
      archives: archives, or one folder, of the user's to read from.
      download: whether to download the archives instead.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, archives: Sequence[Path] = (), download: bool = False, **kwargs: Any):
        self.archives = tuple(archives)
        self.download = download
        super().__init__(**kwargs)

    @property
    def facts(self) -> catalogue.Facts:
        return catalogue.CATALOGUE.get(self.name, catalogue.CATALOGUE["image_folder"])

    @property
    def image_size(self) -> int:
        return cast(ImageSize, self.builder_config).image_size

    def _index(self, files: Files) -> Index:
        """Chooses the images of every split from the files of all archives together; raises UserError if any lack."""
        raise NotImplementedError

    def _pixels(self, raw: Any, name: str) -> np.ndarray:
        """Turns what a reader gave, an image file's bytes unless overridden, into uint8 ``[size, size, channels]``."""
        return rgb_pixels(open_image(raw, name), self.image_size)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.image_size, self.image_size, self.facts.channels)
        features = tfds.features.FeaturesDict(
            {
                # As raw bytes: encoding arrays as PNG would need TensorFlow.
                "image": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES),
                "label": tfds.features.ClassLabel(),
                "key": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, description=self.facts.title, homepage=self.facts.origin, features=features
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        with contextlib.ExitStack() as self._open:
            super()._download_and_prepare(dl_manager, download_config)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        paths = self.archives
        if self.download:
            urls = [archive.url for archive in self.facts.archives]
            paths = tuple(Path(path) for path in dl_manager.download(urls))
        files: Files = {}
        for path in paths:
            logging.info("Reading %s", path)
            check_published(path, self.facts)
            files |= open_files(path, self._open, Path(self.data_dir))
        index = {split: _sorted(classes) for split, classes in self._index(files).items()}
        _check(index)
        names = sorted(name for classes in index.values() for name in classes)
        cast(Any, self.info.features)["label"].names = names
        sizes = {split: {name: len(members) for name, members in classes.items()} for split, classes in index.items()}
        self._sizes = {split: sum(classes.values()) for split, classes in sizes.items()}
        self._check_space()
        prepared.write_index(Path(self.data_dir), sizes, [str(path.resolve()) for path in self.archives])
        return {split: self._generate_examples(split, index[split]) for split in SPLITS}

    def _generate_examples(
        self, split: str, classes: dict[str, dict[str, Callable[[], Any]]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the examples of one split, and writes their pixels to its ``.npy`` array on the way."""
        shape = (self._sizes[split], self.image_size, self.image_size, self.facts.channels)
        path = prepared.array_path(Path(self.data_dir), split)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        members = ((name, file, reader) for name, files in classes.items() for file, reader in files.items())
        progress = tqdm(members, desc=f"{self.name} {split}", total=len(array), unit=" images", disable=None)
        for position, (name, file, reader) in enumerate(progress):
            key = f"{name}/{file}"
            array[position] = self._pixels(reader(), key)
            yield key, {"image": array[position], "label": name, "key": key}
        array.flush()

    def _check_space(self) -> None:
        needed = 2 * sum(self._sizes.values()) * self.image_size**2 * self.facts.channels  # records and arrays
        free = shutil.disk_usage(self.data_dir).free
        if free < needed:
            raise UserError(
                f"{self.name} needs {needed / 1e9:.1f} GB in {self.data_dir}, where {free / 1e9:.1f} GB are free; "
                "make room or choose another data_dir"
            )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator[Any]]]]:
        # tfds holds one shard in memory while it writes it.
        per_shard = max(1, SHARD_BYTES // (self.image_size**2 * self.facts.channels))
        return {
            split: [functools.partial(itertools.islice, examples, per_shard)] * -(-self._sizes[split] // per_shard)
            for split, examples in self._split_generators(dl_manager).items()
        }


def require(found: dict[str, Callable[[], Any]], expected: int, class_name: str, where: str) -> None:
    """Raises UserError unless a class has as many images as its publisher says."""
    if len(found) != expected:
        raise UserError(
            f"class {class_name} has {len(found)} images, expected {expected}: wrong or incomplete archive; {where}"
        )


def _sorted(classes: dict[str, dict[str, Callable[[], Any]]]) -> dict[str, dict[str, Callable[[], Any]]]:
    return {name: dict(sorted(files.items())) for name, files in sorted(classes.items())}


def _check(index: Index) -> None:
    """Raises UserError unless all splits have classes, all classes images, and no class is in two splits."""
    home: dict[str, str] = {}
    for split in SPLITS:
        if not index.get(split):
            raise UserError(f"the {split} split has no classes; {', '.join(SPLITS)} need at least one each")
        for name, files in index[split].items():
            if not files:
                raise UserError(f"class {name} of the {split} split has no images; add some or remove the class")
            if name in home:
                raise UserError(
                    f"class {name} is in both {home[name]} and {split}; few-shot splits share no class: remove one"
                )
            home[name] = split
