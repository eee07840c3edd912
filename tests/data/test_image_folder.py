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
        (no_val, r"birds/val is missing; expected .*birds/\{train,val,test\}/class/"),
        (lambda root: (root / "val" / "empty").mkdir(), r"birds/val/empty holds no \.jpg, \.jpeg or \.png"),
        (lambda root: (root / "val" / "val0").rename(root / "test" / "train1"), "class train1 is in both train and t"),
        (lambda root: (root / "val/val0/0001.png").write_bytes(b"GIF"), r"val0/0001\.png is not a readable image"),
        (lambda root: (root / "val").rename(root / "valid"), r"birds/val is missing"),
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
