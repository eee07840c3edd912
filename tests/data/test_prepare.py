import functools
import hashlib
import http.server
import importlib.util
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxgrad_jax import data
from cxgrad_jax.data import _tfds
from cxgrad_jax.data.datasets import catalogue, omniglot
from cxgrad_jax.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def start(*arguments):
    command = [sys.executable, "-m", "data_prep", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def slow(tmp_path, make):
    """The arguments of a preparation that takes a second or so, since it enlarges every image."""
    make.image_folder(tmp_path / "source", per_class=150)
    return [
        "image_folder", "--source", tmp_path / "source", "--as_name", "mine", "--image_size", 400,
        "--data_dir", tmp_path / "data",
    ]  # fmt: skip


def load(tmp_path):
    return data.load("mine", "train", data_dir=tmp_path / "data", image_size=400)


def expected(tmp_path):
    files = sorted((tmp_path / "source" / "train").rglob("*.png"))
    images = (Image.open(file).resize((400, 400), Image.Resampling.BICUBIC) for file in files)
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("interrupted", [True, False])
def test_what_half_made_objects_raise_is_not_shown_after_an_interruption(interrupted):
    code = f"""
import signal
from data_prep.__main__ import interrupt
class HalfMade:
    def __del__(self): raise AttributeError("half made")
signal.signal(signal.SIGINT, interrupt)
try:
    made = HalfMade()
    if {interrupted}: signal.raise_signal(signal.SIGINT)
    print("to the end")
except KeyboardInterrupt:
    print("interrupted")
del made
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.stdout == ("interrupted\n" if interrupted else "to the end\n")
    assert ("half made" in done.stderr) is not interrupted


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_interrupted_preparation_is_not_taken_for_a_finished_one(number, status, slow, tmp_path):
    process = start(*slow)
    parent = tmp_path / "data" / "mine" / "400"
    deadline = time.monotonic() + 600
    while not list(parent.glob("incomplete.*/**/images_train.npy")):  # it is in the midst of writing
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == status
    if number == signal.SIGKILL:
        assert list(parent.glob("incomplete.*"))
    else:
        assert errors.splitlines()[-1].startswith("cxgrad_jax: interrupted; nothing was prepared")
        assert not list(parent.glob("incomplete.*"))
    with pytest.raises(UserError, match="mine is not prepared"):
        load(tmp_path)
    again = start(*slow)
    again.communicate(timeout=600)
    assert again.returncode == 0
    assert not list(parent.glob("incomplete.*"))
    np.testing.assert_array_equal(load(tmp_path).images, expected(tmp_path))


@pytest.mark.slow
def test_two_preparations_at_once(slow, tmp_path):
    processes = [start(*slow) for _ in range(2)]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    errors = [error for _, error in outputs]
    assert sum("Preparing mine in" in error for error in errors) == 1  # the other one waited, and found it done
    assert sum("mine is prepared already" in error for error in errors) == 1
    np.testing.assert_array_equal(load(tmp_path).images, expected(tmp_path))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mini", {}, r"unknown data set 'mini'"),
        ("cifar_fs", {}, r"cifar_fs needs cifar-100-python\.tar\.gz \(169,001,437 bytes\) from https://www\.cs\.toron"),
        ("omniglot", {}, r"needs images_background\.zip \(9,464,212 bytes\) and images_evaluation.*or --download"),
        ("mini_imagenet", {}, r"needs images\.zip \(about 3 GB\) from .*, or a folder .* --source"),
        ("mini_imagenet", {"download": True}, "cannot be downloaded without an account: mini_imagenet needs images.z"),
        ("tiered_imagenet", {}, r"needs ILSVRC2012_img_train\.tar \(about 138 GiB\) from https://image-net\.org"),
        ("cub", {"download": True, "archives": ["x.tgz"]}, "cub is either downloaded or made from files at hand"),
        ("image_folder", {}, r"image_folder needs a folder laid out as root/\{train,val,test\}"),
        ("image_folder", {"archives": ["x.zip"]}, "image_folder takes no archives here"),
        ("cifar_fs", {"source": "."}, "cifar_fs is not read from a folder"),
        ("cifar_fs", {"archives": ["no.tar.gz"]}, r"no\.tar\.gz does not exist: cifar_fs needs"),
        ("image_folder", {"source": "no"}, "no does not exist"),
        ("image_folder", {"source": __file__}, r"test_prepare\.py is not a folder"),
        ("cifar_fs", {"archives": [__file__]}, "cannot be read as a complete zip or tar archive"),
        ("cub", {"image_size": 0}, "image_size is 0; expected a whole number, 1 to 1024"),
        ("cub", {"as_name": "mine"}, "as_name is 'mine', which is for image_folder; cub keeps its name"),
        ("image_folder", {"as_name": "../up"}, r"as_name is '\.\./up'; expected small letters"),
        ("image_folder", {"as_name": 5}, "as_name is 5; expected small letters"),
        ("cifar_fs", {"archives": 5}, "archives is 5; expected a path or a list of paths"),
        ("glyphs", {"download": True}, r"glyphs needs no download; leave download out \(on the command line: --downl"),
        ("image_folder", {"as_name": "cub"}, "as_name is 'cub'; expected .* no name of another"),
        ("glyphs", {"image_size": 4}, "image_size=4"),
    ],
)
def test_bad_arguments_are_one_line(name, options, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        data.prepare(name, data_dir=tmp_path, **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_data_dir_that_cannot_be_written(tmp_path, make):
    make.image_folder(tmp_path / "source")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot prepare image_folder in .*file/data/image_folder/84/1\.0\.0: "):
        data.prepare("image_folder", source=tmp_path / "source", data_dir=tmp_path / "file" / "data")


def test_data_dir_that_is_not_utf8(tmp_path, make):
    make.image_folder(tmp_path / "source")
    with pytest.raises(UserError, match="is not UTF-8, which tfds needs: choose another data_dir"):
        data.prepare("image_folder", source=tmp_path / "source", data_dir=tmp_path / "caf\udce9")


def test_full_disk_is_told_beforehand(tmp_path, make, monkeypatch):
    from cxgrad_jax.data.datasets import builder

    make.image_folder(tmp_path / "source")
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="image_folder needs [0-9,.]+ MB in .* MB are free; make room"):
        data.prepare("image_folder", source=tmp_path / "source", data_dir=tmp_path / "data")


def test_missing_tfds_tells_the_command(tmp_path, make, monkeypatch):
    make.image_folder(tmp_path / "source")
    find_spec = importlib.util.find_spec
    absent = {"tensorflow_datasets", "array_record"}
    monkeypatch.setattr(_tfds.importlib.util, "find_spec", lambda m: None if m in absent else find_spec(m))
    with pytest.raises(UserError, match="run `pip install tensorflow-datasets array_record`"):
        data.prepare("image_folder", source=tmp_path / "source", data_dir=tmp_path / "data")


@pytest.mark.slow  # the README's first block does it, too
def test_glyphs_are_prepared_on_first_use(tmp_path, caplog):
    from cxgrad_jax.data.datasets import glyphs

    facts = catalogue.CATALOGUE["glyphs"]
    with caplog.at_level("INFO", logger="absl"):
        store = data.load("glyphs", "val", data_dir=tmp_path)
    assert "Preparing glyphs in" in caplog.text
    assert facts.classes is not None and store.num_classes == facts.classes[1]
    drawn = list(glyphs.examples("val", 28))
    names = [(class_name, file) for class_name, file, _ in drawn]
    order = sorted(range(len(drawn)), key=names.__getitem__)
    np.testing.assert_array_equal(store.images, np.stack([drawn[i][2] for i in order]))
    assert store.class_names == tuple(sorted({class_name for class_name, _ in names}))
    files = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy"))
    assert data.load("glyphs", "train", data_dir=tmp_path).num_classes == facts.classes[0]
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")) == files  # drawn once


@pytest.fixture
def published(tmp_path, make, monkeypatch):
    """A local server in the publisher's place, with Omniglot archives of two characters a split."""
    lists = {split: names[:2] for split, names in omniglot.class_lists().items()}
    monkeypatch.setattr(omniglot, "class_lists", lambda: lists)
    image = make.encode(np.full((28, 28), 200, np.uint8), "PNG")
    folder = tmp_path / "published"
    folder.mkdir()
    for name, splits in (("images_background", ["train", "val"]), ("images_evaluation", ["test"])):
        classes = [class_name for split in splits for class_name in lists[split]]
        make.write_zip(
            folder / f"{name}.zip", {f"{name}/{c}/0001_{i:02d}.png": image for c in classes for i in range(20)}
        )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    archives = tuple(
        archive._replace(
            url=f"http://127.0.0.1:{server.server_port}/{archive.name}",
            size=(folder / archive.name).stat().st_size,
            sha256=hashlib.sha256((folder / archive.name).read_bytes()).hexdigest(),
        )
        for archive in catalogue.CATALOGUE["omniglot"].archives
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "omniglot", catalogue.CATALOGUE["omniglot"]._replace(archives=archives))
    yield folder
    server.shutdown()
    server.server_close()


def test_download(published, tmp_path, caplog):
    data.prepare("omniglot", download=True, data_dir=tmp_path / "data")
    store = data.load("omniglot", "test", data_dir=tmp_path / "data")
    assert store.images.shape == (40, 28, 28, 1) and (store.images == 55).all()
    assert "not the publisher's file" not in caplog.text
    for path in published.iterdir():  # another size needs no second download
        path.unlink()
    data.prepare("omniglot", download=True, data_dir=tmp_path / "data", image_size=14)


def test_download_with_a_wrong_checksum(published, tmp_path, make):
    make.write_zip(published / "images_evaluation.zip", {"images_evaluation/tampered.png": b""})
    with pytest.raises(UserError, match=r"not the publisher's: .*images_evaluation\.zip") as error:
        data.prepare("omniglot", download=True, data_dir=tmp_path / "data")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="not prepared"):
        data.load("omniglot", "test", data_dir=tmp_path / "data")


def test_download_that_is_not_there(published, tmp_path):
    (published / "images_background.zip").unlink()
    with pytest.raises(UserError, match=r"images_background\.zip.* download it yourself") as error:
        data.prepare("omniglot", download=True, data_dir=tmp_path / "data")
    assert "\n" not in str(error.value)


def test_local_archive_of_another_checksum_is_warned_of(published, tmp_path, caplog):
    archives = sorted(published.iterdir())
    data.prepare("omniglot", archives=archives, data_dir=tmp_path / "a")
    assert "not the publisher's file" not in caplog.text
    with archives[0].open("ab") as file:
        file.write(b" ")  # still a zip, but another file
    with caplog.at_level("WARNING", logger="absl"):  # the command line, which other tests run, sets another level
        data.prepare("omniglot", archives=archives, data_dir=tmp_path / "b")
    assert "images_background.zip is not the publisher's file" in caplog.text
    stores = [data.load("omniglot", "train", data_dir=tmp_path / name) for name in "ab"]
    np.testing.assert_array_equal(stores[0].images, stores[1].images)
