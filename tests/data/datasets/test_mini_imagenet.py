import bz2
import pickle
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


@pytest.mark.parametrize("kind", ["zip", "folder", "bz2"])
def test_round_trip(kind, images, tmp_path, make):
    files = {f"images/{name}": data for name, data in images.items()} | {"images/n9999999900000001.jpg": b"not asked"}
    if kind == "zip":
        made_from: dict[str, Any] = {"archives": [make.write_zip(tmp_path / "images.zip", files)]}
    elif kind == "bz2":  # the layout of MAML++
        files = {f"mini_imagenet_full_size/train/{name[:9]}/{name}": data for name, data in images.items()}
        path = tmp_path / "mini_imagenet_full_size.tar.bz2"
        path.write_bytes(bz2.compress(make.tar_bytes(files)))
        made_from = {"archives": [path]}
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


@pytest.fixture
def caches(monkeypatch):
    """By split, what the pickled caches hold: two classes of three images, whose rows are mixed."""
    lists = {split: dict(list(mini_imagenet.file_lists()[split].items())[:2]) for split in data.SPLITS}
    monkeypatch.setattr(mini_imagenet, "file_lists", lambda: lists)
    monkeypatch.setattr(mini_imagenet, "IMAGES_PER_CLASS", 3)
    rng = np.random.default_rng(0)
    return {
        split: {
            "image_data": rng.integers(0, 256, (6, 84, 84, 3), np.uint8),
            "class_dict": dict(zip(lists[split], ([4, 0, 2], [1, 3, 5]), strict=True)),
        }
        for split in data.SPLITS
    }


def write_caches(folder, caches, protocol=4, text=str):
    folder.mkdir()
    paths = []
    for split, cache in caches.items():
        paths.append(folder / f"mini-imagenet-cache-{split}.pkl")
        rows = {text(synset): rows for synset, rows in cache["class_dict"].items()}
        content = {text("image_data"): cache["image_data"], text("class_dict"): rows}
        paths[-1].write_bytes(pickle.dumps(content, protocol))
    return paths


@pytest.mark.parametrize(("protocol", "text"), [(2, str.encode), (4, str)])
@pytest.mark.parametrize("kind", ["archives", "source"])
def test_pickled_caches(protocol, text, kind, caches, tmp_path):
    paths = write_caches(tmp_path / "caches", caches, protocol, text)
    options: dict[str, Any] = {"archives": paths} if kind == "archives" else {"source": tmp_path / "caches"}
    data.prepare("mini_imagenet", data_dir=tmp_path / "data", **options)
    for split, cache in caches.items():
        store = data.load("mini_imagenet", split, data_dir=tmp_path / "data")
        assert store.class_names == tuple(sorted(cache["class_dict"])) and list(store.offsets) == [0, 3, 6]
        rows = [row for synset in store.class_names for row in sorted(cache["class_dict"][synset])]
        np.testing.assert_array_equal(store.images, cache["image_data"][rows])


def rows_of_one_class(rows):
    return lambda cache: cache["class_dict"].update({next(iter(cache["class_dict"])): rows})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cache: cache.pop("image_data"), "the pickles lack 'image_data'"),
        (lambda cache: cache.update(image_data=np.zeros((6, 84, 84, 3))), r"image_data is not uint8 \[N, 84, 84, 3\]"),
        (lambda cache: cache["class_dict"].popitem(), "class_dict does not name the 2 val classes of Ravi's lists"),
        (rows_of_one_class([0, 1, 6]), "rows of .* do not fit"),
        (rows_of_one_class(["x"]), "rows of .* do not fit"),
        (rows_of_one_class([[0], [1, 2]]), "rows of .* do not fit"),
        (rows_of_one_class([0]), "has 1 images; expected 3"),
    ],
)
def test_malformed_caches_are_one_line(change, message, caches, tmp_path):
    change(caches["val"])
    folder = tmp_path / "caches"
    folder.mkdir()
    paths = [folder / f"mini-imagenet-cache-{split}.pkl" for split in caches]
    for path, cache in zip(paths, caches.values(), strict=True):
        path.write_bytes(pickle.dumps(cache))
    with pytest.raises(UserError, match=message) as error:
        data.prepare("mini_imagenet", archives=paths, data_dir=tmp_path / "data")
    assert "\n" not in str(error.value)


def test_one_cache_of_three_is_refused(caches, tmp_path):
    paths = write_caches(tmp_path / "caches", caches)
    with pytest.raises(UserError, match="mini-imagenet-cache-val.pkl is missing; expected .* all three"):
        data.prepare("mini_imagenet", archives=paths[:1], data_dir=tmp_path / "data")
