import gzip

import numpy as np
import pytest

from cxgrad_jax import data
from cxgrad_jax.data.datasets import cub
from cxgrad_jax.errors import UserError


@pytest.fixture
def images(make, monkeypatch):
    """The JPEGs of two species a split, of unequal numbers, by their paths in the archive."""
    few = {split: cub.class_lists()[split][:2] for split in data.SPLITS}
    monkeypatch.setattr(cub, "class_lists", lambda: few)
    species = [name for split in data.SPLITS for name in few[split]]
    images = {
        f"CUB_200_2011/images/{name}/{name[4:]}_{i:04d}_{796000 - i}.jpg": make.encode(make.pixels(9 * s + i, 40, 33))
        for s, name in enumerate(species)
        for i in range(2 + s % 3)
    }
    monkeypatch.setattr(cub, "IMAGES", len(images))
    return images


def cub_archive(tmp_path, images, make):
    others = {"CUB_200_2011/README": b"text", "CUB_200_2011/images/._x.jpg": b"", "attributes.txt": b"text"}
    path = tmp_path / "CUB_200_2011.tgz"
    path.write_bytes(gzip.compress(make.tar_bytes(others | dict(reversed(images.items())))))
    return path


def test_round_trip(images, tmp_path, make):
    data.prepare("cub", archives=[cub_archive(tmp_path, images, make)], data_dir=tmp_path / "data")
    for split in data.SPLITS:
        store = data.load("cub", split, data_dir=tmp_path / "data")
        assert store.class_names == tuple(cub.class_lists()[split])
        for c, name in enumerate(store.class_names):
            paths = sorted(path for path in images if f"/{name}/" in path)
            expected = np.stack([make.expected_rgb(images[path], 84) for path in paths])
            np.testing.assert_array_equal(store.images[store.offsets[c] : store.offsets[c + 1]], expected)


def test_incomplete_archive_is_refused(images, tmp_path, make):
    def refused(message):
        with pytest.raises(UserError, match=message):
            path = cub_archive(tmp_path, images, make)
            data.prepare("cub", archives=[path], data_dir=tmp_path / "data")

    expected = len(images)
    images.popitem()
    refused(f"CUB has {expected - 1} images; expected {expected}")
    for path in [path for path in images if "/002.Laysan_Albatross/" in path]:
        del images[path]
    refused("class 002.Laysan_Albatross is missing")
