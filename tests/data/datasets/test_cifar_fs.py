import gzip
import os
import pickle
import tarfile
import time

import numpy as np
import pytest

from cxgrad_jax import data
from cxgrad_jax.data.datasets import cifar_fs
from cxgrad_jax.errors import UserError


def cifar_archive(path, make, class_names, images, labels, in_test, *, protocol=2, text=str.encode, filenames=True):
    """The layout of cifar-100-python.tar.gz, with the images in a random order as there."""
    files = {"cifar-100-python/file.txt~": b""}
    files["cifar-100-python/meta"] = pickle.dumps({text("fine_label_names"): [text(n) for n in class_names]}, protocol)
    order = np.random.default_rng(0).permutation(len(labels))
    for subset in ("test", "train"):
        rows = order[in_test[order] == (subset == "test")]
        content = {
            text("batch_label"): text(subset),
            text("fine_labels"): [int(label) for label in labels[rows]],
            text("data"): np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)),
        }
        if filenames:
            content[text("filenames")] = [text(f"{class_names[labels[row]]}_s_{row:06d}.png") for row in rows]
        files[f"cifar-100-python/{subset}"] = pickle.dumps(content, protocol)
    path.write_bytes(gzip.compress(make.tar_bytes(files), 0))
    return path


@pytest.fixture
def few(monkeypatch):
    """Two classes a split and five images a class; the sixth of each class's names stays out of the splits."""
    lists = {split: names[:2] for split, names in cifar_fs.class_lists().items()}
    monkeypatch.setattr(cifar_fs, "class_lists", lambda: lists)
    monkeypatch.setattr(cifar_fs, "IMAGES_PER_CLASS", 5)
    class_names = sorted(name for names in lists.values() for name in names) + ["zebra"]
    labels = np.repeat(np.arange(7), 5)
    images = np.random.default_rng(1).integers(0, 256, (35, 32, 32, 3), np.uint8)
    return class_names, images, labels, np.arange(35) % 5 == 4


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("text", [str.encode, str])
def test_round_trip(protocol, text, few, tmp_path, make):
    class_names, images, labels, _ = few
    path = cifar_archive(tmp_path / "cifar-100-python.tar.gz", make, *few, protocol=protocol, text=text)
    data.prepare("cifar_fs", archives=[path], data_dir=tmp_path / "data")
    for split in data.SPLITS:
        store = data.load("cifar_fs", split, data_dir=tmp_path / "data")
        assert store.class_names == tuple(cifar_fs.class_lists()[split])
        expected = np.concatenate([images[labels == class_names.index(name)] for name in store.class_names])
        np.testing.assert_array_equal(store.images, expected)


def test_folders_of_pngs(few, tmp_path, make):
    """The layout of Bertinetto's cifar100.zip, which the official CxGrad code uses."""
    class_names, images, labels, _ = few
    files = {
        f"cifar100/data/{class_names[label]}/{row:06d}.png": make.encode(images[row], "PNG")
        for row, label in enumerate(labels)
    }
    path = make.write_zip(tmp_path / "cifar100.zip", files | {"cifar100/splits/bertinetto/train.txt": b"beaver"})
    data.prepare("cifar_fs", archives=[path], data_dir=tmp_path / "data")
    for split in data.SPLITS:
        store = data.load("cifar_fs", split, data_dir=tmp_path / "data")
        expected = np.concatenate([images[labels == class_names.index(name)] for name in store.class_names])
        np.testing.assert_array_equal(store.images, expected)


def test_sizes_lie_side_by_side(few, tmp_path, make):
    path = cifar_archive(tmp_path / "cifar-100-python.tar.gz", make, *few)
    for size in (None, 84):
        data.prepare("cifar_fs", archives=[path], data_dir=tmp_path / "data", image_size=size)
    small, large = (data.load("cifar_fs", "val", data_dir=tmp_path / "data", image_size=size) for size in (32, 84))
    assert large.images.shape == (10, 84, 84, 3)
    for before, after in zip(small.images, large.images, strict=True):
        np.testing.assert_array_equal(after, make.expected_rgb(make.encode(before, "PNG"), 84))
    with pytest.raises(UserError, match=r"cifar_fs is not prepared .*there are sizes 32, 84.*--image_size 48"):
        data.load("cifar_fs", "val", data_dir=tmp_path / "data", image_size=48)


def test_archive_without_file_names(few, tmp_path, make):
    path = cifar_archive(tmp_path / "cifar-100-python.tar.gz", make, *few, filenames=False)
    data.prepare("cifar_fs", archives=[path], data_dir=tmp_path / "data")
    assert len(np.unique(data.load("cifar_fs", "train", data_dir=tmp_path / "data").images, axis=0)) == 10


class Attack:
    """Unpickled without restriction, this makes a folder."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_malicious_pickle_runs_nothing(few, tmp_path, make):
    target = tmp_path / "attacked"
    evil = pickle.dumps({b"fine_label_names": Attack(str(target))})
    files = {f"cifar-100-python/{name}": evil for name in ("meta", "train", "test")}
    path = tmp_path / "cifar-100-python.tar.gz"
    path.write_bytes(gzip.compress(make.tar_bytes(files)))
    with pytest.raises(UserError, match=r"cifar-100-python/meta is not a readable pickle .*mkdir") as error:
        data.prepare("cifar_fs", archives=[path], data_dir=tmp_path / "data")
    assert "\n" not in str(error.value) and not target.exists()
    pickle.loads(evil)
    assert target.exists()  # the pickle would have worked


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", b"\x80\x04garbage", "cifar-100-python/train is not a readable pickle"),
        ("train", pickle.dumps([1, 2]), "cifar-100-python/train holds a list, not a dict"),
        ("train", pickle.dumps({"fine_labels": []}), "the pickles lack 'data'"),
        ("train", pickle.dumps({"data": np.zeros((2, 9), np.uint8), "fine_labels": [0, 1]}), r"not uint8 \[N, 3072\]"),
        ("train", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [7]}), "labels .* do not fit"),
        ("train", pickle.dumps({"data": np.zeros((0, 3072), np.uint8), "fine_labels": []}), "1 images; expected 5"),
        ("train", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": 7}), "labels .* do not fit"),
        ("meta", pickle.dumps({"fine_label_names": None}), "labels .* do not fit"),
        ("train", None, "cifar-100-python/train is missing"),
        ("meta", pickle.dumps({"fine_label_names": ["a"] * 7}), "has 0 images; expected 5"),
    ],
)
def test_malformed_archive_is_one_line(name, content, message, few, tmp_path, make):
    path = cifar_archive(tmp_path / "cifar-100-python.tar.gz", make, *few)
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.isfile()]
        files = {member.name: archive.extractfile(member).read() for member in members}  # pyright: ignore
    del files[f"cifar-100-python/{name}"]
    if content is not None:
        files[f"cifar-100-python/{name}"] = content
    path.write_bytes(gzip.compress(make.tar_bytes(files)))
    with pytest.raises(UserError, match=message) as error:
        data.prepare("cifar_fs", archives=[path], data_dir=tmp_path / "data")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_complete_cifar_fs(read_real, tmp_path, make):
    parts = [read_real(f"cifarfs_full_{part}.npz") for part in ("train_a", "train_b", "val", "test")]
    class_names = sorted(str(name) for _, _, facts in parts for name in facts["class_names"])
    names = np.concatenate([facts["class_names"][labels] for _, labels, facts in parts])
    images, labels = np.concatenate([part[0] for part in parts]), np.searchsorted(class_names, names)
    in_test = np.concatenate([facts["orig_test"].reshape(-1) for _, _, facts in parts])
    assert in_test.sum() == 10_000 and len(images) == 60_000
    path = cifar_archive(tmp_path / "cifar-100-python.tar.gz", make, class_names, images, labels, in_test)
    start = time.perf_counter()
    data.prepare("cifar_fs", archives=[path], data_dir=tmp_path / "data")
    print(f"prepared in {time.perf_counter() - start:.1f} s")
    for split, num_classes in zip(data.SPLITS, (64, 16, 20), strict=True):
        store = data.load("cifar_fs", split, data_dir=tmp_path / "data")
        published = {str(n) for *_, facts in parts for n in facts["class_names"][facts["split"] == split]}
        assert store.num_classes == num_classes and set(np.diff(store.offsets)) == {600}
        assert store.class_names == tuple(sorted(published))
        rows = np.concatenate([np.flatnonzero(labels == class_names.index(name)) for name in store.class_names])
        np.testing.assert_array_equal(store.images, images[rows])
