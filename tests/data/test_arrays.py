import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cxgrad_jax import data
from cxgrad_jax.errors import UserError

IMAGES = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([7, -2, 7, -2, 7], ("-2", "7")),
        (["dog", "cat", "dog", "cat", "dog"], ("cat", "dog")),
        (np.array([2, 1, 2, 1, 2], np.uint8), ("1", "2")),
        (np.array([b"b", b"a", b"b", b"a", b"b"]), ("a", "b")),
        (np.array(["b", "a", "b", "a", "b"], object), ("a", "b")),
        (jnp.array([65, 64, 65, 64, 65]), ("64", "65")),
    ],
)
def test_labels_of_any_order_and_kind(labels, names):
    store = data.from_arrays(IMAGES, labels, name="mine", split="val")
    assert store.class_names == names and (store.name, store.split) == ("mine", "val")
    assert store.offsets.tolist() == [0, 2, 5] and store.offsets.dtype == np.int32
    np.testing.assert_array_equal(store.images, IMAGES[[1, 3, 0, 2, 4]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_float_images_are_stored_as_given(dtype):
    images = jnp.asarray(IMAGES / 255).astype(dtype) if dtype == "bfloat16" else (IMAGES / 255).astype(dtype)
    store = data.from_arrays(images, [0, 0, 1, 1, 1])
    assert store.images.dtype == images.dtype and (store.images == np.asarray(images)).all()


def test_class_names_follow_the_sorted_labels():
    store = data.from_arrays(IMAGES, [7, 3, 7, 3, 7], class_names=["three", "seven"])
    assert store.class_names == ("three", "seven")


LABELS = np.array([0, 0, 1, 1, 1])
UNIT = np.full((5, 2, 2, 3), 0.5, np.float32)


@pytest.mark.parametrize(
    ("images", "labels", "options", "message"),
    [
        (IMAGES, LABELS[:4], {}, "there are 5 images and 4 labels"),
        (IMAGES[..., 0], LABELS, {}, r"shape \[5, 2, 2\]; .*images\[\.\.\., None\] adds a channel axis"),
        (IMAGES[0, 0], LABELS, {}, r"shape \[2, 3\]; expected \[N, H, W, C\]"),
        (
            np.zeros((5, 3, 28, 28), np.uint8),
            LABELS,
            {},
            r"\[5, 3, 28, 28\]; .*the channels last; .*transpose\(0, 2, 3, 1\)",
        ),
        (IMAGES[:0], LABELS[:0], {}, "none of them may be 0"),
        (IMAGES.astype(np.int64), LABELS, {}, r"dtype int64; expected uint8, or float.*astype\(np\.uint8\)"),
        (IMAGES > 3, LABELS, {}, "dtype bool; expected uint8"),
        (np.where(UNIT == 0.5, np.nan, UNIT), LABELS, {}, "images hold NaN"),
        (UNIT * 510, LABELS, {}, "values from 255 to 255; .* divide by 255"),
        (UNIT - 1, LABELS, {}, "values from -0.5 to -0.5"),
        (IMAGES, LABELS.astype(float), {}, "labels have dtype float64; expected integers or strings"),
        (IMAGES, np.eye(5, dtype=int), {}, r"labels have shape \[5, 5\].*argmax\(1\) if one-hot"),
        (IMAGES, np.array([None, "a", "a", "a", "a"], object), {}, "labels have dtype object"),
        (IMAGES, LABELS, {"class_names": ["a", "b", "c"]}, "class_names has 3 names for 2 distinct labels"),
        (IMAGES, LABELS, {"class_names": {"a", "b"}}, "expected a list with one name for each distinct label"),
        (IMAGES, LABELS, {"class_names": b"ab"}, "class_names is b'ab'; expected a list with one name for each"),
        (np.ma.masked_array(IMAGES), LABELS, {}, "images are a masked array; expected a plain one"),
        (IMAGES, np.ma.masked_array(LABELS), {}, "labels are a masked array; expected a plain one"),
        (IMAGES, LABELS, {"class_names": ["a", "a"]}, "class_names holds 'a' twice"),
        (IMAGES, LABELS, {"split": "valid"}, "split is 'valid'; expected one of train, val, test"),
    ],
)
def test_mistakes_are_one_line(images, labels, options, message):
    with pytest.raises(UserError, match=message) as error:
        data.from_arrays(images, labels, **options)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, make):
    """The folder of a prepared tfds data set."""
    root = tmp_path_factory.mktemp("tfds")
    make.image_folder(root / "source")
    return data.prepare("image_folder", source=root / "source", as_name="mine", data_dir=root, image_size=12)


@pytest.mark.parametrize("kind", ["str", "path", "builder"])
def test_from_tfds_equals_what_was_prepared(kind, prepared):
    tfds = pytest.importorskip("tensorflow_datasets")
    given = {"str": str(prepared), "path": prepared, "builder": tfds.builder_from_directory(prepared)}[kind]
    expected = data.load("mine", "val", data_dir=prepared.parents[2], image_size=12)
    store = data.from_tfds(given, "val")
    np.testing.assert_array_equal(store.images, expected.images)
    np.testing.assert_array_equal(store.offsets, expected.offsets)
    assert store[2:] == expected[2:]


def test_from_tfds_takes_parts_of_splits_and_sizes(prepared):
    store = data.from_tfds(prepared, "test[:50%]", image_size=6)
    assert store.split == "test" and store.images.shape == (3, 6, 6, 3) and store.class_names == ("test0",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "tfds cannot read split 'validation' of mine .*expected one of train, val, test"),
        ({"image_size": 0}, "image_size is 0; expected a whole number, at least 1"),
        ({"image_key": "picture"}, "mine has no feature 'picture'; expected one of image, key, label"),
    ],
)
def test_from_tfds_names_mistakes(options, message, prepared):
    with pytest.raises(UserError, match=message) as error:
        data.from_tfds(prepared, **{"split": "train", **options})
    assert "\n" not in str(error.value)


class Unlabelled:
    """A tfds builder whose records have no class."""

    def __init__(self, folder):
        self._builder: Any = tfds.builder_from_directory(str(folder))

    def __getattr__(self, name):
        return getattr(self._builder, name)

    def as_data_source(self, split):
        return [{**record, "label": -1} for record in self._builder.as_data_source(split)]


def test_from_tfds_refuses_images_without_a_class(prepared):
    with pytest.raises(UserError, match="images with the label -1, which means none; expected a split whose"):
        data.from_tfds(Unlabelled(prepared), "train")


def test_from_tfds_takes_text_for_labels(prepared):
    assert data.from_tfds(prepared, "train", label_key="key").class_names[0] == "train0/0000.png"


def test_from_tfds_names_a_folder_that_holds_nothing(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} is not a prepared tfds data set"):
        data.from_tfds(tmp_path, "train")


def test_from_tfds_names_a_value_that_is_no_data_set():
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(UserError, match="builder_or_dir is 5; expected a tfds builder or the folder of a data set"):
        data.from_tfds(5, "test")


def test_without_tfds_the_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="run `pip install tensorflow-datasets array_record importlib_resources`"):
        data.from_tfds("x", "train")
