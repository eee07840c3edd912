from typing import Any

import numpy as np
import pytest

from cxgrad_jax import data
from cxgrad_jax.data.datasets import mini_imagenet
from cxgrad_jax.errors import UserError


@pytest.fixture
def images(make, monkeypatch):
    """Two classes a split and two images a class of Ravi's lists."""
    lists = mini_imagenet.file_lists()
    few = {split: {c: lists[split][c][:2] for c in sorted(lists[split])[:2]} for split in data.SPLITS}
    monkeypatch.setattr(mini_imagenet, "file_lists", lambda: few)
    names = [name for split in data.SPLITS for files in few[split].values() for name in files]
    return {name: make.encode(make.pixels(seed, 84, 84 + seed % 2)) for seed, name in enumerate(names)}


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_round_trip(kind, images, tmp_path, make):
    files = {f"images/{name}": data for name, data in images.items()} | {"images/n9999999900000001.jpg": b"not asked"}
    if kind == "zip":
        made_from: dict[str, Any] = {"archives": [make.write_zip(tmp_path / "images.zip", files)]}
    else:
        made_from = {"source": make.write_folder(tmp_path / "images", files)}
    data.prepare("mini_imagenet", data_dir=tmp_path / "data", **made_from)
    for split in data.SPLITS:
        store = data.load("mini_imagenet", split, data_dir=tmp_path / "data")
        classes = mini_imagenet.file_lists()[split]
        assert store.class_names == tuple(sorted(classes)) and store.smallest_class == 2
        expected = [make.expected_rgb(images[name], 84) for c in sorted(classes) for name in classes[c]]
        np.testing.assert_array_equal(store.images, np.stack(expected))


def test_missing_image_is_named(images, tmp_path, make):
    gone = sorted(images)[3]
    path = make.write_zip(tmp_path / "images.zip", {name: data for name, data in images.items() if name != gone})
    with pytest.raises(UserError, match=f"1 of the 12 images of miniImageNet are missing, the first is {gone}"):
        data.prepare("mini_imagenet", archives=[path], data_dir=tmp_path / "data")


def test_true_lists_refuse_another_archive(tmp_path, make):
    path = make.write_zip(tmp_path / "other.zip", {"n0000000000000001.jpg": b""})
    with pytest.raises(UserError, match="60000 of the 60000 images of miniImageNet are missing"):
        data.prepare("mini_imagenet", archives=[path], data_dir=tmp_path / "data")
