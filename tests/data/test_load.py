import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import pytest

from cxgrad_jax import data
from cxgrad_jax.data import _layout
from cxgrad_jax.errors import UserError


@pytest.fixture
def folder(tmp_path, make):
    """A prepared image folder, "mine" at 12 x 12."""
    make.image_folder(tmp_path / "source")
    return data.prepare(
        "image_folder", source=tmp_path / "source", as_name="mine", data_dir=tmp_path / "data", image_size=12
    )


def load(tmp_path, split="train"):
    return data.load("mine", split, data_dir=tmp_path / "data", image_size=12)


def test_images_are_a_read_only_memory_map(folder, tmp_path):
    store = load(tmp_path)
    assert (store.name, store.split, load(tmp_path, "val").split) == ("mine", "train", "val")
    assert isinstance(store.images, np.memmap) and store.images.dtype == np.uint8
    assert store.offsets.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_default_data_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(tmp_path))
    assert data.default_data_dir() == tmp_path
    monkeypatch.delenv("CXGRAD_DATA_DIR")
    assert data.default_data_dir() == pathlib.Path.home() / ".cache" / "cxgrad_jax"


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and a user id that has no account."""
    monkeypatch.delenv("CXGRAD_DATA_DIR", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


def test_without_a_home_folder_data_lie_in_the_temporary_one(homeless, caplog):
    assert data.default_data_dir() == pathlib.Path(tempfile.gettempdir(), "cxgrad_jax")
    assert "there is no home folder: prepared data lie in" in caplog.text


def test_without_a_home_folder_a_tilde_is_one_line(homeless):
    with pytest.raises(UserError, match="data_dir is '~/data', whose home folder is not known; give a path without ~"):
        data.load("glyphs", "train", data_dir="~/data")


def test_default_data_dir_is_used(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(tmp_path / "data"))
    assert data.load("mine", "val", image_size=12).num_classes == 2


@pytest.mark.parametrize(
    ("name", "options", "command"),
    [
        ("cifar_fs", {}, "python -m data_prep cifar_fs --download --data_dir {}`"),
        ("omniglot", {"image_size": 32}, "python -m data_prep omniglot --download --image_size 32 --data_dir {}`"),
        ("mini_imagenet", {}, "python -m data_prep mini_imagenet --archive images.zip --data_dir {}`"),
        (
            "tiered_imagenet",
            {},
            "python -m data_prep tiered_imagenet --archive ILSVRC2012_img_train.tar --data_dir {}`",
        ),
        ("mine", {}, "python -m data_prep image_folder --source DIR --as_name mine --data_dir {}`"),
    ],
)
def test_not_prepared_tells_the_command(name, options, command, folder, tmp_path):
    with pytest.raises(UserError) as error:
        data.load(name, "train", data_dir=tmp_path / "data", **options)
    assert str(error.value).startswith(f"{name} is not prepared in {tmp_path / 'data' / name}")
    assert str(error.value).endswith(command.format(tmp_path / "data"))


def test_a_preparation_that_was_killed_is_no_size(folder, tmp_path):
    folder.rename(folder.with_name("incomplete.XYZ_1.0.0"))
    with pytest.raises(UserError, match=r"mine is not prepared in \S+: run"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("mine", "valid", "split is 'valid'; expected one of train, val, test"),
        ("minne", "train", r"unknown data set 'minne'; expected one of mini_imagenet, .*--as_name"),
        ("", "train", "unknown data set ''; expected one of"),
        ("..", "train", r"unknown data set '\.\.'; expected one of"),
        ("omniglott", "train", r"unknown data set 'omniglott'; did you mean omniglot\?"),
    ],
)
def test_unknown_names(name, split, message, tmp_path):
    with pytest.raises(UserError, match=message):
        data.load(name, split, data_dir=tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def other_shape(path):
    np.save(path, np.zeros((3, 12, 12, 3), np.uint8))


def other_type(path):
    np.save(path, np.zeros((6, 12, 12, 3), np.float32))


def pickled(path):
    np.save(path, np.array([object()], object), allow_pickle=True)


@pytest.mark.parametrize("file", ["images_train.npy", "images.json"])
@pytest.mark.parametrize("damage", [pathlib.Path.unlink, cut, lambda path: path.write_bytes(b"")])
def test_damage_tells_the_remedy_and_the_remedy_works(file, damage, folder, tmp_path):
    before = np.array(load(tmp_path).images)
    damage(folder / file)
    with pytest.raises(UserError, match=r"mine/12/1\.0\.0 is damaged .*: run `python -m data_prep ") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
    data.prepare("image_folder", source=tmp_path / "source", as_name="mine", data_dir=tmp_path / "data", image_size=12)
    np.testing.assert_array_equal(load(tmp_path).images, before)


@pytest.mark.parametrize("damage", [other_shape, other_type, pickled])
def test_foreign_arrays_are_refused(damage, folder, tmp_path):
    damage(folder / "images_train.npy")
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path)


@pytest.mark.parametrize("content", [[], {}, {"class_sizes": {"train": {}}}, {"class_sizes": {s: [1] for s in "abc"}}])
def test_foreign_index_is_refused(content, folder, tmp_path):
    (folder / _layout.INDEX).write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path)


def test_loading_needs_no_tfds(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert load(tmp_path).num_classes == 2


@pytest.mark.parametrize("file", ["images_train.npy", "images.json"])
def test_mutated_files_are_read_or_one_line(file, folder, tmp_path):
    rng = np.random.default_rng(0)
    sound = (folder / file).read_bytes()
    refused = 0
    for _ in range(200):
        mutated = bytearray(sound)
        for position in rng.integers(0, min(len(sound), 400), rng.integers(1, 6)):
            mutated[position] = rng.integers(256)
        (folder / file).write_bytes(mutated)
        try:
            load(tmp_path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused
