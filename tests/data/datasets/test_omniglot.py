import io
import time

import numpy as np
import pytest
from PIL import Image

from cxgrad_jax import data
from cxgrad_jax.data.datasets import omniglot
from cxgrad_jax.errors import UserError


def png(ink: np.ndarray) -> bytes:
    """Black strokes on white paper, as the publisher stores them."""
    buffer = io.BytesIO()
    Image.fromarray(255 - ink).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def few(monkeypatch):
    lists = {split: names[:2] for split, names in omniglot.class_lists().items()}
    monkeypatch.setattr(omniglot, "class_lists", lambda: lists)
    return lists


def write_archives(tmp_path, make, lists, per_class=20, size=28):
    names = [name for split in data.SPLITS for name in lists[split]]
    rng = np.random.default_rng(0)
    drawings = {name: rng.integers(0, 2, (per_class, size, size), np.uint8) * 255 for name in names}
    zips = [tmp_path / "images_background.zip", tmp_path / "images_evaluation.zip"]
    for path, part in zip(zips, (names[:3], names[3:]), strict=True):
        files = {
            f"{path.stem}/{name}/{names.index(name):04d}_{i + 1:02d}.png": png(image)
            for name in part
            for i, image in enumerate(drawings[name])
        }
        make.write_zip(path, files | {f"__MACOSX/{name}/._0709_01.png": b"finder" for name in part})
    return zips, drawings


def test_round_trip(few, tmp_path, make):
    zips, drawings = write_archives(tmp_path, make, few)
    data.prepare("omniglot", archives=zips, data_dir=tmp_path / "data")
    for split in data.SPLITS:
        store = data.load("omniglot", split, data_dir=tmp_path / "data")
        assert store.class_names == tuple(sorted(few[split])) and store.images.shape[1:] == (28, 28, 1)
        np.testing.assert_array_equal(
            store.images[..., 0], np.concatenate([drawings[name] for name in store.class_names])
        )


def test_other_sizes_are_pillows(few, tmp_path, make):
    zips, drawings = write_archives(tmp_path, make, few, size=105)
    data.prepare("omniglot", archives=zips, data_dir=tmp_path / "data")
    store = data.load("omniglot", "test", data_dir=tmp_path / "data")
    paper = Image.fromarray(255 - drawings[store.class_names[0]][0])
    expected = 255 - np.asarray(paper.resize((28, 28), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(store.images[0, :, :, 0], expected)


def test_one_archive_of_two_is_refused(few, tmp_path, make):
    zips, _ = write_archives(tmp_path, make, few)
    with pytest.raises(UserError, match="has 0 images; expected 20: .*images_evaluation.zip"):
        data.prepare("omniglot", archives=zips[:1], data_dir=tmp_path / "data")


def test_missing_image_is_refused(few, tmp_path, make):
    zips, _ = write_archives(tmp_path, make, few, per_class=19)
    with pytest.raises(UserError, match=f"class {few['train'][0]} has 19 images; expected 20"):
        data.prepare("omniglot", archives=zips, data_dir=tmp_path / "data")


@pytest.mark.slow
def test_complete_omniglot(read_real, tmp_path, make):
    images, labels, facts = read_real("omniglot28.npz")
    names, subsets = facts["class_names"][labels], facts["subset"][labels]
    files = {"background": {}, "evaluation": {}}
    for image, label, name, subset, drawer in zip(images, labels, names, subsets, facts["drawer"], strict=True):
        files[subset][f"images_{subset}/{name}/{label + 1:04d}_{drawer:02d}.png"] = png(image)
    zips = [make.write_zip(tmp_path / f"images_{subset}.zip", found) for subset, found in files.items()]
    start = time.perf_counter()
    data.prepare("omniglot", archives=zips, data_dir=tmp_path / "data")
    print(f"prepared in {time.perf_counter() - start:.1f} s")
    for split, num_classes in zip(data.SPLITS, (1028, 172, 423), strict=True):
        store = data.load("omniglot", split, data_dir=tmp_path / "data")
        chosen = facts["split_vinyals"] == split
        assert store.num_classes == num_classes and set(np.diff(store.offsets)) == {20}
        assert store.class_names == tuple(sorted(facts["class_names"][chosen]))
        np.testing.assert_array_equal(store.images[..., 0], images[chosen[labels]])
