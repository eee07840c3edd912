"""The tfds builder of all data sets, without TensorFlow. It also writes the memory maps that training reads."""

import contextlib
import errno
import functools
import itertools
import os
import shutil
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size
from tqdm.auto import tqdm

from cxgrad_jax.data import _layout
from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.data.datasets.archives import Files, Index, check_published, open_files
from cxgrad_jax.data.datasets.facts import Facts
from cxgrad_jax.data.datasets.images import open_image
from cxgrad_jax.errors import UserError, reason

SHARD_BYTES = 128 << 20
NAMED_ERRORS = 3

Readers = dict[str, dict[str, Callable[[], Any]]]
"""By class name and file name: a function that reads the image."""


class ImageSize(tfds.core.BuilderConfig):
    """The configuration of a builder: the height and width of its images. Its name is the number."""

    def __init__(self, image_size: int):
        super().__init__(name=str(image_size), description=f"images of {image_size} x {image_size} pixels")
        self.image_size = image_size


# GeneratorBasedBuilder alone would hold a whole split in memory, and would need TensorFlow from 1 GB on.
# ShardBasedBuilder, which comes first, writes the same generators shard by shard, in their order.
class FewShotBuilder(tfds.core.ShardBasedBuilder, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes class-disjoint splits of uint8 images as ArrayRecord and, in the same order, as ``.npy`` arrays.

    ``make_builder`` derives a class for each data set and image size, because tfds takes both from the class.

    Attributes:
      dataset: the module of the data set, which chooses the images and makes pixels of them.
      facts: its entry in the catalogue.
      archives: the archives, or the folder, to read from.
      download: whether to download the archives instead.
      fingerprint: the fingerprint of the user's own folder.
    """

    VERSION = tfds.core.Version("1.0.0")
    dataset: catalogue.DataSet
    facts: Facts

    def __init__(
        self, *, archives: Sequence[Path] = (), download: bool = False, fingerprint: str | None = None, **kwargs: Any
    ):
        self.archives = tuple(archives)
        self.download = download
        self.fingerprint = fingerprint
        super().__init__(**kwargs)

    @property
    def image_size(self) -> int:
        return cast(ImageSize, self.builder_config).image_size

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
        self._index = self._read_index(paths)
        sizes = {
            split: {name: len(members) for name, members in classes.items()} for split, classes in self._index.items()
        }
        names = sorted(name for classes in sizes.values() for name in classes)
        cast(Any, self.info.features)["label"].names = names
        self._sizes = {split: sum(classes.values()) for split, classes in sizes.items()}
        self._check_space()
        source = [str(path.resolve()) for path in self.archives]
        _layout.write_index(Path(self.data_dir), sizes, source, self.fingerprint)
        return {split: self._generate_examples(split) for split in self._index}

    def _read_index(self, paths: Sequence[Path]) -> Index:
        """Reads the images of every split, with classes and files sorted by name."""
        files: Files = {}
        for path in paths:
            logging.info("Reading %s", path)
            check_published(path, self.facts)
            files |= open_files(path, self._open, Path(self.data_dir))
        try:
            index = self.dataset.index(files, self.image_size)
            _check(index)
        except UserError as error:
            raise UserError(f"{', '.join(map(str, paths))}: {error}" if paths else str(error)) from error
        return {
            split: {name: dict(sorted(members.items())) for name, members in sorted(index[split].items())}
            for split in SPLITS
            if split in index
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the examples of one split, and writes their pixels to its ``.npy`` array on the way."""
        shape = (self._sizes[split], self.image_size, self.image_size, self.facts.channels)
        path = _layout.array_path(Path(self.data_dir), split)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(path)
        progress = tqdm(_images(self._index[split]), f"{self.name} {split}", len(array), unit=" images", disable=None)
        for position, (name, key, reader) in enumerate(progress):
            try:
                array[position] = self._pixels(key, reader)
            except UserError as error:
                progress.close()
                raise self._all_errors(error) from error
            yield key, {"image": array[position], "label": name, "key": key}
        array.flush()

    def _pixels(self, key: str, reader: Callable[[], Any]) -> np.ndarray:
        try:
            return self.dataset.pixels(open_image(reader(), key), self.image_size)
        except OSError as error:
            raise UserError(f"{key} cannot be read ({reason(error)})") from error

    def _all_errors(self, first: UserError) -> UserError:
        """Tries every image, so that one error names all that cannot be read."""
        errors = []
        images = [image for readers in self._index.values() for image in _images(readers)]
        for _, key, reader in tqdm(images, "looking for all images that cannot be read", unit=" images", disable=None):
            try:
                self._pixels(key, reader)
            except UserError as error:
                errors.append(str(error))
        if len(errors) <= 1:
            return first
        more = "; ..." if len(errors) > NAMED_ERRORS else ""
        return UserError(f"{len(errors)} images cannot be read: {'; '.join(errors[:NAMED_ERRORS])}{more}")

    def _check_space(self) -> None:
        needed = 2 * sum(self._sizes.values()) * self.image_size**2 * self.facts.channels  # records and arrays
        free = shutil.disk_usage(self.data_dir).free
        if free < needed:
            raise UserError(
                f"{self.name} needs {needed / 1e6:,.1f} MB in {self.data_dir}, where {free / 1e6:,.1f} MB are free; "
                "make room or choose another data_dir"
            )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator[Any]]]]:
        # tfds holds one shard in memory while it writes it.
        per_shard = max(1, SHARD_BYTES // (self.image_size**2 * self.facts.channels))
        return {
            split: [functools.partial(itertools.islice, examples, per_shard)] * -(-self._sizes[split] // per_shard)
            for split, examples in self._split_generators(dl_manager).items()
        }


def _reserve(path: Path) -> None:
    """Reserves the room that a file needs. If the disk became full, writing to a memory map would end the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # others come from file systems that cannot reserve
                raise


def make_builder(
    name: str,
    own_name: str,
    directory: Path,
    archives: Sequence[Path] = (),
    download: bool = False,
    fingerprint: str | None = None,
) -> FewShotBuilder:
    """Makes the builder of a data set under the name, size and version that ``directory`` has (see ``_layout``)."""
    size = directory.parent.name
    attributes = {
        "__module__": __name__,
        "dataset": catalogue.DATASETS[name],
        "facts": catalogue.CATALOGUE[name],
        "name": own_name,
        "BUILDER_CONFIGS": [ImageSize(int(size))],
        "VERSION": tfds.core.Version(directory.name),
        "url_infos": {
            archive.url: UrlInfo(Size(archive.size), archive.sha256 or "", archive.name)
            for archive in catalogue.CATALOGUE[name].archives
            if archive.url
        },
    }
    builder = types.new_class(
        "FewShot", (FewShotBuilder,), {"skip_registration": True}, lambda body: body.update(attributes)
    )
    return builder(
        archives=archives,
        download=download,
        fingerprint=fingerprint,
        data_dir=directory.parent.parent.parent,
        config=size,
        file_format="array_record",
    )


def _images(readers: Readers) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Class name, key and reader of every image of a split."""
    return ((name, f"{name}/{file}", reader) for name, files in readers.items() for file, reader in files.items())


def _check(index: Index) -> None:
    """Raises UserError unless all splits have classes, all classes images, and no class is in two splits."""
    home: dict[str, str] = {}
    for split, classes in index.items():
        if not classes:
            raise UserError(f"the {split} split has no classes; add some or remove it")
        for name, files in classes.items():
            if not files:
                raise UserError(f"class {name} of the {split} split has no images; add some or remove the class")
            if name in home:
                raise UserError(
                    f"class {name} is in both {home[name]} and {split}; few-shot splits share no class: remove one"
                )
            home[name] = split
