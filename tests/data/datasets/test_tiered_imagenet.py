import io
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxgrad_jax import data
from cxgrad_jax.data.datasets import tiered_imagenet
from cxgrad_jax.errors import UserError


@pytest.fixture
def images(make, monkeypatch):
    """By synset, the JPEGs of two classes a split; one has an image more than the others."""
    lists = tiered_imagenet.class_lists()
    few = {split: sorted(lists[split])[:2] for split in data.SPLITS}
    monkeypatch.setattr(tiered_imagenet, "class_lists", lambda: few)
    monkeypatch.setattr(tiered_imagenet, "IMAGES", {"train": 5, "val": 4, "test": 4})
    synsets = [synset for split in data.SPLITS for synset in few[split]]
    return {
        synset: {
            f"{synset}_{10 + i}.JPEG": make.encode(make.pixels(10 * s + i, 50 + s, 60))
            for i in range(3 if s == 0 else 2)
        }
        for s, synset in enumerate(synsets)
    }


def imagenet_tar(path, images, make):
    """The layout of ILSVRC2012_img_train.tar: a tar of one tar a synset, with synsets that are not asked for."""
    tars = {"n00000001.tar": make.tar_bytes({"n00000001_1.JPEG": b"not asked"})}
    tars |= {f"{synset}.tar": make.tar_bytes(files) for synset, files in reversed(images.items())}
    path.write_bytes(make.tar_bytes(tars))
    return path


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_round_trip(kind, images, tmp_path, make):
    if kind == "tar":
        made_from: dict[str, Any] = {"archives": [imagenet_tar(tmp_path / "ILSVRC2012_img_train.tar", images, make)]}
    else:
        files = {f"{synset}/{name}": data for synset, found in images.items() for name, data in found.items()}
        made_from = {"source": make.write_folder(tmp_path / "train", files)}
    data.prepare("tiered_imagenet", data_dir=tmp_path / "data", image_size=32, **made_from)
    for split in data.SPLITS:
        store = data.load("tiered_imagenet", split, data_dir=tmp_path / "data", image_size=32)
        synsets = tiered_imagenet.class_lists()[split]
        assert store.class_names == tuple(synsets)
        expected = [make.expected_rgb(images[s][name], 32) for s in synsets for name in sorted(images[s])]
        np.testing.assert_array_equal(store.images, np.stack(expected))


def test_incomplete_archive_is_refused(images, tmp_path, make):
    path = tmp_path / "ILSVRC2012_img_train.tar"
    gone = sorted(images)[-1]

    def refused(message):
        with pytest.raises(UserError, match=message):
            data.prepare("tiered_imagenet", archives=[path], data_dir=tmp_path / "data")

    imagenet_tar(path, {synset: files for synset, files in images.items() if synset != gone}, make)
    refused(f"class {gone} is missing")
    images[gone].popitem()
    imagenet_tar(path, images, make)
    refused("has 3 images; expected 4")
    path.write_bytes(path.read_bytes()[:-15_000])
    refused("cut off|cannot be read")


def test_tar_of_a_synset_that_claims_more_than_it_has(images, tmp_path, make):
    synset = sorted(images)[0]
    inner = make.tar_bytes(images[synset])
    cut = {f"{name}.tar": make.tar_bytes(files) for name, files in images.items()} | {f"{synset}.tar": inner[:700]}
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(make.tar_bytes(cut))
    with pytest.raises(UserError, match=f"{synset}.tar is cut off in {synset}_10.JPEG"):
        data.prepare("tiered_imagenet", archives=[path], data_dir=tmp_path / "data")


def write_caches(folder, make, *, synsets=True, number=None):
    """The pickles of Ren et al.: two classes a split, whose rows are mixed; returns the images by split and class."""
    folder.mkdir()
    found = {}
    for s, (split, total) in enumerate(tiered_imagenet.IMAGES.items()):
        labels = np.arange(total) % 2
        names = tiered_imagenet.class_lists()[split] if synsets else ["crane", f"maillot {s}"]
        pngs = [make.encode(make.pixels(100 * s + row, 84, 84), "PNG") for row in range(total)]
        rows = [np.frombuffer(png, np.uint8) for png in pngs[:number]]
        (folder / f"{split}_images_png.pkl").write_bytes(pickle.dumps(rows))
        content = {"label_specific": labels, "label_specific_str": names, "label_general": labels * 0}
        (folder / f"{split}_labels.pkl").write_bytes(pickle.dumps(content, 2))
        found[split] = [[pngs[row] for row in np.flatnonzero(labels == label)] for label in (0, 1)]
    return found


@pytest.mark.parametrize("synsets", [True, False])
@pytest.mark.parametrize("kind", ["source", "tar"])
def test_pickled_caches(synsets, kind, images, tmp_path, make):
    pngs = write_caches(tmp_path / "caches", make, synsets=synsets)
    if kind == "tar":
        files = {f"tiered-imagenet/{path.name}": path.read_bytes() for path in (tmp_path / "caches").iterdir()}
        (tmp_path / "tiered_imagenet.tar").write_bytes(make.tar_bytes(files))
        made_from: dict[str, Any] = {"archives": [tmp_path / "tiered_imagenet.tar"]}
    else:
        made_from = {"source": tmp_path / "caches"}
    data.prepare("tiered_imagenet", data_dir=tmp_path / "data", **made_from)
    for split in data.SPLITS:
        store = data.load("tiered_imagenet", split, data_dir=tmp_path / "data")
        if synsets:
            assert store.class_names == tuple(tiered_imagenet.class_lists()[split])
        else:  # names in words, which splits may share
            assert store.class_names[0] == f"{split}000 crane"
        expected = [np.asarray(Image.open(io.BytesIO(png))) for files in pngs[split] for png in files]
        np.testing.assert_array_equal(store.images, np.stack(expected))


def test_malformed_caches_are_one_line(images, tmp_path, make):
    def refused(folder, message):
        with pytest.raises(UserError, match=message) as error:
            data.prepare("tiered_imagenet", source=tmp_path / folder, data_dir=tmp_path / "data")
        assert "\n" not in str(error.value)

    write_caches(tmp_path / "short", make, number=3)
    refused("short", "train_images_png.pkl is not a list of 5 images")
    write_caches(tmp_path / "lacks", make)
    (tmp_path / "lacks" / "val_images_png.pkl").unlink()
    refused("lacks", "val_images_png.pkl is missing; .* all six")
    write_caches(tmp_path / "labels", make)
    content = {"label_specific": np.array([0, 1, 2, 0]), "label_specific_str": ["a", "b"]}
    (tmp_path / "labels" / "val_labels.pkl").write_bytes(pickle.dumps(content))
    refused("labels", "val_labels.pkl: label_specific does not number label_specific_str")
    content = {"label_specific": np.array([0, 1, 2, 0]), "label_specific_str": ["a", "b", "c"]}
    (tmp_path / "labels" / "val_labels.pkl").write_bytes(pickle.dumps(content))
    refused("labels", "val_labels.pkl names 3 classes, not 2")
