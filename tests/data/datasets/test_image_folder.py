import json
import os
from pathlib import Path

import numpy as np
import pytest

from cxgrad_jax import data
from cxgrad_jax.errors import UserError


def prepare(tmp_path, **options):
    return data.prepare("image_folder", source=tmp_path / "birds", data_dir=tmp_path / "data", **options)


def test_round_trip(tmp_path, make):
    files = make.image_folder(tmp_path / "birds")
    jpeg = make.encode(make.pixels(99), "JPEG")
    make.write_folder(
        tmp_path / "birds",
        {
            "train/train0/9998.JPG": jpeg,
            "train/train0/9999.Jpeg": jpeg,
            "train/train0/notes.txt": b"not an image",
            "train/train0/.hidden.png": b"not an image",
            "train/.cache/1.png": b"not an image",
        },
    )
    prepare(tmp_path, as_name="my_birds", image_size=12)
    files |= {"train/train0/9998.JPG": jpeg, "train/train0/9999.Jpeg": jpeg}
    seen = set()
    for split in data.SPLITS:
        store = data.load("my_birds", split, data_dir=tmp_path / "data", image_size=12)
        assert store.class_names == (f"{split}0", f"{split}1")
        names = sorted(name for name in files if name.startswith(f"{split}/"))
        np.testing.assert_array_equal(store.images, np.stack([make.expected_rgb(files[name], 12) for name in names]))
        assert list(store.offsets) == ([0, 5, 8] if split == "train" else [0, 3, 6])
        seen |= set(store.class_names)
    assert len(seen) == 6


def test_records_equal_the_arrays(tmp_path, make):
    tfds = pytest.importorskip("tensorflow_datasets")
    make.image_folder(tmp_path / "birds")
    builder = tfds.builder_from_directory(prepare(tmp_path, image_size=12))
    store = data.load("image_folder", "val", data_dir=tmp_path / "data", image_size=12)
    records = list(builder.as_data_source("val"))
    np.testing.assert_array_equal(np.stack([record["image"] for record in records]), store.images)
    labels = [builder.info.features["label"].int2str(int(record["label"])) for record in records]
    assert labels == list(np.repeat(store.class_names, np.diff(store.offsets)))
    assert records[0]["key"] == b"val0/0000.png"


def test_many_shards_equal_one(tmp_path, make, monkeypatch):
    from cxgrad_jax.data.datasets import builder

    make.image_folder(tmp_path / "birds", per_class=5)
    prepare(tmp_path, as_name="one", image_size=12)
    monkeypatch.setattr(builder, "SHARD_BYTES", 3 * 12 * 12 * 3)
    directory = prepare(tmp_path, as_name="many", image_size=12)
    assert len(list(directory.glob("many-train.array_record-*-of-00004"))) == 4
    tfds = pytest.importorskip("tensorflow_datasets")
    records = tfds.builder_from_directory(directory).as_data_source("train")
    one, many = (data.load(name, "train", data_dir=tmp_path / "data", image_size=12) for name in ("one", "many"))
    np.testing.assert_array_equal(one.images, many.images)
    np.testing.assert_array_equal(np.stack([record["image"] for record in records]), one.images)


def no_val(root):
    for path in sorted((root / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "val").rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_val, r"birds: val is missing; expected \{train,val,test\}/class/"),
        (lambda root: (root / "test" / "empty" / "deeper").mkdir(parents=True), r"birds: test/empty holds no \.bmp"),
        (lambda root: (root / "val" / "empty").mkdir(), r"birds: val/empty holds no \.bmp, .*\.jpg, \.png"),
        (lambda root: (root / "val" / "val0").rename(root / "test" / "train1"), "class train1 is in both train and t"),
        (lambda root: (root / "val/val0/0001.png").write_bytes(b"GIF"), r"val0/0001\.png is not a readable image"),
        (lambda root: (root / "val").rename(root / "valid"), r"birds: val is missing"),
    ],
)
def test_malformed_folder_is_one_line(spoil, message, tmp_path, make):
    make.image_folder(tmp_path / "birds")
    spoil(tmp_path / "birds")
    with pytest.raises(UserError, match=message) as error:
        prepare(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="not prepared"):
        data.load("image_folder", "train", data_dir=tmp_path / "data")


def test_a_name_stands_for_one_folder(tmp_path, make):
    make.image_folder(tmp_path / "birds")
    make.image_folder(tmp_path / "dogs")
    prepare(tmp_path, as_name="mine")
    assert prepare(tmp_path, as_name="mine").is_dir()  # the same again is no error
    with pytest.raises(UserError, match="mine is prepared from .*birds already"):
        data.prepare("image_folder", source=tmp_path / "dogs", data_dir=tmp_path / "data", as_name="mine")


def load(tmp_path, name, split="train"):
    return data.load(name, split, data_dir=tmp_path / "data", image_size=12)


def add(root, make):
    make.write_folder(root, {"train/train0/more.png": make.encode(make.pixels(77), "PNG")})


def remove(root, make):
    (root / "train/train0/0000.png").unlink()


def change(root, make):
    (root / "train/train0/0000.png").write_bytes(make.encode(make.pixels(78), "PNG"))


def touch(root, make):
    """Other pixels in as many bytes: only the time tells."""
    path = root / "train/train0/0000.png"
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("edit", [add, remove, change, touch])
def test_a_changed_folder_is_prepared_again(edit, tmp_path, make, caplog):
    make.image_folder(tmp_path / "birds")
    directory = prepare(tmp_path, as_name="mine", image_size=12)
    written = (directory / "images.json").stat().st_mtime_ns
    prepare(tmp_path, as_name="mine", image_size=12)
    assert (directory / "images.json").stat().st_mtime_ns == written and "has changed" not in caplog.text
    edit(tmp_path / "birds", make)
    prepare(tmp_path, as_name="mine", image_size=12)
    assert "birds has changed since it was prepared: preparing it again" in caplog.text
    files = sorted((tmp_path / "birds/train").rglob("*.png"))
    expected = [make.expected_rgb(file.read_bytes(), 12) for file in files]
    np.testing.assert_array_equal(load(tmp_path, "mine").images, np.stack(expected))


def test_the_old_set_stays_until_the_new_one_is_complete(tmp_path, make, monkeypatch):
    make.image_folder(tmp_path / "birds")
    directory = prepare(tmp_path, as_name="mine", image_size=12)
    opened = load(tmp_path, "mine").images
    before = np.array(opened)
    broken = tmp_path / "birds/train/train0/9999.png"
    broken.write_bytes(b"garbage")
    with pytest.raises(UserError, match="9999.png is not a readable image"):
        prepare(tmp_path, as_name="mine", image_size=12)
    np.testing.assert_array_equal(load(tmp_path, "mine").images, before)

    broken.write_bytes(make.encode(make.pixels(99), "PNG"))
    rename = Path.rename

    def without_room(path, target):
        if "incomplete" in str(path) and target == directory:
            raise OSError("no room")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", without_room)
        with pytest.raises(UserError, match="cannot prepare mine in .*: no room"):
            prepare(tmp_path, as_name="mine", image_size=12)
    np.testing.assert_array_equal(load(tmp_path, "mine").images, before)

    prepare(tmp_path, as_name="mine", image_size=12)
    assert len(load(tmp_path, "mine").images) == 7
    np.testing.assert_array_equal(opened, before)  # a training that began earlier goes on
    assert sorted(path.name for path in directory.parent.iterdir()) == [".lock", "1.0.0"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, make):
    make.image_folder(tmp_path / "birds")
    directory = prepare(tmp_path, as_name="mine", image_size=12)
    written = (directory / "images.json").stat().st_mtime_ns
    directory.rename(directory.with_name("replaced.1.0.0"))
    assert (prepare(tmp_path, as_name="mine", image_size=12) / "images.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("layout", ["test", "."])
def test_a_test_set_alone(layout, tmp_path, make):
    files = make.image_folder(tmp_path / "all")
    (tmp_path / "birds" / layout).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "all" / "test").rename(tmp_path / "birds" / layout)
    directory = prepare(tmp_path, as_name="mine", image_size=12)
    store = load(tmp_path, "mine", "test")
    assert store.class_names == ("test0", "test1") and store.split == "test" and store.name == "mine"
    names = sorted(name for name in files if name.startswith("test/"))
    np.testing.assert_array_equal(store.images, np.stack([make.expected_rgb(files[name], 12) for name in names]))
    for split in ("train", "val"):
        with pytest.raises(UserError, match=f"mine has no {split} split, only test: .* folder without {split}/"):
            load(tmp_path, "mine", split)
    tfds = pytest.importorskip("tensorflow_datasets")
    assert len(tfds.builder_from_directory(directory).as_data_source("test")) == 6


def test_files_left_out_are_counted(tmp_path, make, caplog):
    make.image_folder(tmp_path / "birds")
    others = ["notes.txt", "train/loose.png", "train/train0/notes.txt", "train/train0/deeper/1.png", "valid/a/1.png"]
    make.write_folder(tmp_path / "birds", dict.fromkeys([*others, ".hidden", "train/train0/.DS_Store"], b"x"))
    prepare(tmp_path, as_name="mine", image_size=12)
    assert "5 files are left out: notes.txt, train/loose.png, train/train0/deeper/1.png, ...; exp" in caplog.text
    assert load(tmp_path, "mine").smallest_class == 3


@pytest.mark.parametrize("suffix", [".bmp", ".GIF", ".webp"])
def test_other_suffixes_are_images(suffix, tmp_path, make):
    make.image_folder(tmp_path / "birds")
    for file in sorted((tmp_path / "birds").rglob("*.png")):
        file.rename(file.with_suffix(suffix))
    prepare(tmp_path, as_name="mine", image_size=12)
    assert len(load(tmp_path, "mine").images) == 6


def test_all_images_that_cannot_be_read_are_told(tmp_path, make):
    make.image_folder(tmp_path / "birds")
    (tmp_path / "birds/train/train0/0001.png").write_bytes(b"")
    (tmp_path / "birds/val/val1/0002.png").write_bytes(b"<html>")
    (tmp_path / "birds/test/test0/link.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "birds/test/test1/pipe.png")
    with pytest.raises(UserError) as error:
        prepare(tmp_path)
    message = str(error.value)
    assert message.startswith("4 images cannot be read: train0/0001.png is not a readable image (it is empty)")
    assert "val1/0002.png is not a readable image (it is not a JPEG, PNG," in message
    assert "link.jpg is not a file but a folder, a broken link or a device" in message and message.endswith("; ...")
    assert "\n" not in message


def test_links_in_a_circle_end(tmp_path, make, caplog):
    make.image_folder(tmp_path / "birds")
    (tmp_path / "birds/train/train0/again").symlink_to(tmp_path / "birds")
    (tmp_path / "birds/train/train0/itself").symlink_to(tmp_path / "birds/train/train0/itself")
    prepare(tmp_path, as_name="mine", image_size=12)
    assert "train0/again is passed over: it is the same folder as" in caplog.text
    assert len(load(tmp_path, "mine").images) == 6


@pytest.mark.parametrize("link", ["train/linked", "test/linked", "train/a.link"])
def test_a_link_makes_no_class_of_a_class(link, tmp_path, make):
    make.image_folder(tmp_path / "birds")
    (tmp_path / "birds" / link).symlink_to(tmp_path / "birds/test/test0")
    with pytest.raises(UserError, match=f"{link} is the same folder as .*/test/test0; few-shot splits share no class"):
        prepare(tmp_path, as_name="mine", image_size=12)


def test_a_folder_is_read_where_it_lies_and_the_link_to_it_is_told_once(tmp_path, make, caplog):
    make.image_folder(tmp_path / "birds")
    (tmp_path / "birds/train/train0/again").symlink_to(tmp_path / "birds/test/test0")
    prepare(tmp_path, as_name="mine", image_size=12)
    assert load(tmp_path, "mine", "test").class_names == ("test0", "test1")
    assert caplog.text.count("is passed over") == 1


def test_splits_in_capitals_are_told(tmp_path, make):
    make.image_folder(tmp_path / "birds")
    for split in data.SPLITS:
        (tmp_path / "birds" / split).rename(tmp_path / "birds" / split.title())
    with pytest.raises(UserError, match=r"birds: \w+ holds folders and no images; .* train, val, test, in small let"):
        prepare(tmp_path)


def test_names_of_any_bytes(tmp_path, make):
    """Latin-1 bytes, as old zips leave them, and a line end become escapes."""
    make.image_folder(tmp_path / "birds")
    root = os.fsencode(tmp_path / "birds/train/")
    os.rename(root + b"/train0", root + b"/caf\xe9")
    os.rename(root + b"/train1", root + b"/two\nlines")
    os.rename(root + b"/caf\xe9/0000.png", root + b"/caf\xe9/\xe8.png")
    directory = prepare(tmp_path, as_name="mine", image_size=12)
    assert load(tmp_path, "mine").class_names == ("caf\\xe9", "two\\nlines")
    tfds = pytest.importorskip("tensorflow_datasets")
    records = list(tfds.builder_from_directory(directory).as_data_source("train"))
    assert records[2]["key"] == b"caf\\xe9/\\xe8.png"


def test_an_old_preparation_without_fingerprint_is_renewed(tmp_path, make, caplog):
    make.image_folder(tmp_path / "birds")
    index = prepare(tmp_path, as_name="mine", image_size=12) / "images.json"
    content = json.loads(index.read_text())
    del content["fingerprint"]
    index.write_text(json.dumps(content))
    prepare(tmp_path, as_name="mine", image_size=12)
    assert "preparing it again" in caplog.text and json.loads(index.read_text())["fingerprint"]
