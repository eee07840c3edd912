"""The doors that ``benchmarks.fuzz`` knocks at: every reader of a file or a flag, and what it is given.

A door is a function ``(rng, place) -> call``: it damages something in ``place`` and returns the call that reads it.
The call returns (a program: its exit status) or raises.
"""

import bz2
import contextlib
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

import cxgrad_jax as cx
import data_prep.__main__ as data_prep
from benchmarks.mutations import any_value, changed_bytes, changed_flags, changed_json, changed_json_file
from cxgrad_jax import compare, interop, main, parallel, tables
from cxgrad_jax.data.datasets.archives import open_files
from cxgrad_jax.data.datasets.images import ink_pixels, open_image, rgb_pixels, shown_pixels
from cxgrad_jax.data.datasets.pickles import read_pickle
from cxgrad_jax.report.figures import accuracy, gradient_norms
from cxgrad_jax.report.measured_runs import MeasuredRun
from cxgrad_jax.report.results import results_at_hand
from cxgrad_jax.training import build
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config_files import load_config, packaged
from cxgrad_jax.training.metrics_file import MetricsFile, read_metrics
from cxgrad_jax.training.workdir import read_config

Call = Callable[[], Any]


class Place(NamedTuple):
    """What is sound, and where it may be damaged.

    Attributes:
      data: a folder with the prepared data set ``tiny``, 16 x 16.
      run: a finished run on it, never changed.
      copy: a copy of the run, whose files are put back after every call.
      folder: for everything else, emptied after every call.
    """

    data: Path
    run: Path
    copy: Path
    folder: Path


TINY = {
    "data.name": "tiny", "data.image_size": 16, "model.features": 4, "learner.num_steps": 1, "learner.context_dim": 4,
    "episode.way": 3, "episode.query": 2, "train.iterations": 2, "train.epoch_iterations": 1, "train.meta_batch": 1,
    "evaluation.episodes": 4, "evaluation.val_episodes": 4, "evaluation.ensemble": 1,
}  # fmt: skip


def make_place(root: Path) -> Place:
    """Prepares a tiny data set and trains a run on it, in some seconds."""
    rng = np.random.default_rng(0)
    for split in cx.data.SPLITS:
        for c in range(4):
            folder = root / "images" / split / f"{split}_{c}"
            folder.mkdir(parents=True)
            for i, pixels in enumerate(rng.integers(0, 256, (4, 16, 16, 3), np.uint8)):
                Image.fromarray(pixels).save(folder / f"{i}.png")
    cx.data.prepare("image_folder", source=root / "images", as_name="tiny", image_size=16, data_dir=root / "data")
    status = main.run([f"--workdir={root / 'run'}", *flags(root / "data")])
    if status:
        raise RuntimeError(f"the run to be damaged ended with status {status}")
    return place_of(root, root / "data", root / "run")


def place_of(root: Path, data: Path, run: Path) -> Place:
    """The place of prepared data and a finished run."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run, root / "copy")
    (root / "folder").mkdir()
    return Place(data, run, root / "copy", root / "folder")


def flags(data: Path) -> list[str]:
    """Of the tiny run."""
    return [f"--config.data.dir={data}", *(f"--config.{field}={value}" for field, value in TINY.items())]


@functools.cache
def _pictures() -> dict[str, bytes]:
    """Image files of all kinds that are read, and of one that is not."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8))
    grey = colour.convert("L")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    clear = colour.convert("RGBA")
    clear.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    palette = colour.convert("P")
    return {
        "rgb.png": _file(colour, "PNG"), "rgba.png": _file(clear, "PNG"), "la.png": _file(clear.convert("LA"), "PNG"),
        "p.png": _file(palette, "PNG", transparency=3), "one.png": _file(grey.convert("1"), "PNG"),
        "deep.png": _file(deep, "PNG", transparency=300), "exif.png": _file(colour, "PNG", exif=exif),
        "a.jpg": _file(colour, "JPEG", exif=exif), "cmyk.jpg": _file(colour.convert("CMYK"), "JPEG"),
        "progressive.jpg": _file(colour, "JPEG", progressive=True),
        "a.bmp": _file(colour, "BMP"), "p.bmp": _file(palette, "BMP"),
        "a.gif": _file(palette, "GIF", save_all=True, append_images=[palette.rotate(90)], transparency=5),
        "a.webp": _file(colour, "WEBP", exif=exif), "clear.webp": _file(clear, "WEBP", lossless=True),
        "a.tif": _file(colour, "TIFF"),
    }  # fmt: skip


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def images(rng: np.random.Generator, place: Place) -> Call:
    """A damaged image, to pixels in one of the three ways."""
    content = changed_bytes(rng, _pick(rng, _pictures()))
    pixels = (shown_pixels, rgb_pixels, ink_pixels)[rng.integers(0, 3)]
    return lambda: pixels(open_image(content, "image"), 16)


@functools.cache
def _archives() -> dict[str, bytes]:
    pictures = _pictures()
    names = {f"train/class_{i % 2}/{name}": content for i, (name, content) in enumerate(pictures.items())}
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    tar = tarred.getvalue()
    arrays = {b"data": np.arange(60, dtype=np.uint8).reshape(5, 12), b"fine_labels": [0, 1, 2, 3, 4], b"x": b"y"}
    return {
        "a.zip": zipped.getvalue(), "a.tar": tar,
        "a.tar.gz": gzip.compress(tar, mtime=0), "a.tar.bz2": bz2.compress(tar),
        "a.tar.xz": lzma.compress(tar), "a.pkl": pickle.dumps(arrays, 2), "b.pkl": pickle.dumps(arrays, 4),
    }  # fmt: skip


def archives(rng: np.random.Generator, place: Place) -> Call:
    """A damaged archive, of which every file is read."""
    path = _damaged_archive(rng, place)

    def read():
        with contextlib.ExitStack() as stack:
            files = open_files(path, stack, place.folder)
            for member in files.values():
                read_pickle(member, "expected a pickle") if path.suffix == ".pkl" else member()

    return read


def archives_prepared(rng: np.random.Generator, place: Place) -> Call:
    """``python -m data_prep`` with a damaged archive of a data set or with damaged images of the user's own."""
    where = ["--data_dir", str(place.folder / "data"), "--verbosity", "error"]
    if rng.integers(0, 2):
        name = ("mini_imagenet", "tiered_imagenet", "cifar_fs", "cub", "omniglot")[rng.integers(0, 5)]
        path = _damaged_archive(rng, place)
        return lambda: data_prep.main([name, "--archive", str(path), *where])
    for i, split in enumerate(cx.data.SPLITS):
        folder = place.folder / "images" / split / f"class{i}"
        folder.mkdir(parents=True)
        names = list(_pictures())
        for name in (names[k] for k in rng.integers(0, len(names), 2)):
            content = _pictures()[name]
            (folder / name).write_bytes(changed_bytes(rng, content) if rng.integers(0, 6) == 0 else content)
    source = str(place.folder / "images")
    return lambda: data_prep.main(["image_folder", "--source", source, "--as_name", "own", "--image_size=16", *where])


def _damaged_archive(rng: np.random.Generator, place: Place) -> Path:
    names = list(_archives())
    name = names[rng.integers(0, len(names))]
    path = place.folder / (name if rng.integers(0, 8) else names[rng.integers(0, len(names))])
    path.write_bytes(changed_bytes(rng, _archives()[name]))
    return path


def prepared_data(rng: np.random.Generator, place: Place) -> Call:
    """A prepared data set whose index or arrays are damaged, from which an episode is drawn."""
    shutil.copytree(place.data / "tiny", place.folder / "data" / "tiny")
    (index,) = (place.folder / "data").rglob("images.json")
    if rng.integers(0, 2):
        index.write_bytes(changed_json_file(rng, index.read_bytes()))
    else:
        path = index.parent / "images_test.npy"
        content = path.read_bytes()
        path.write_bytes(
            changed_bytes(rng, content[:128]) + content[128:] if rng.integers(0, 2) else changed_bytes(rng, content)
        )
    return lambda: cx.sampler(
        cx.data.load("tiny", "test", data_dir=place.folder / "data", image_size=16), way=3, shot=1, query=1
    )(0)


def config_json(rng: np.random.Generator, place: Place) -> Call:
    """``--mode=evaluate`` of a run whose config.json is damaged. Where it can be read, the data are missing."""
    path = place.copy / "config.json"
    path.write_bytes(changed_json_file(rng, path.read_bytes()))
    return lambda: main.run([f"--workdir={place.copy}", "--mode=evaluate", f"--config.data.dir={place.folder}"])


def metrics_jsonl(rng: np.random.Generator, place: Place) -> Call:
    """A damaged metrics.jsonl, as a resumed training and the figures read it."""
    path = place.copy / "metrics.jsonl"
    if rng.integers(0, 2):
        path.write_bytes(changed_bytes(rng, path.read_bytes()))
    else:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [changed_json(rng, line) if rng.integers(0, 2) else line for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def read():
        run = _run(place)
        recorded = accuracy.recorded(run)
        if len(recorded.val[0]):
            _ = (100 * recorded.val[1] - recorded.val[2], 100 * recorded.train[1])
        for values in gradient_norms.recorded(run)[1].values():
            f"{values.mean():.3g}"
        MetricsFile(path, 1).write(iteration=2, val_loss=0.5)
        assert read_metrics(path)[-1] == {"iteration": 2, "val_loss": 0.5}

    return read


def results_json(rng: np.random.Generator, place: Place) -> Call:
    """A damaged results.json, as tables and the report read it."""
    path = place.copy / "results.json"
    path.write_bytes(changed_json_file(rng, path.read_bytes()))

    def read():
        if results_at_hand(place.copy):
            accuracy.test_line(_run(place))

    return read


def _run(place: Place) -> MeasuredRun:
    """The damaged run, with what the figures of accuracies and norms need of it."""
    return MeasuredRun("copy", place.copy, _config(place.run), *[None] * 5)  # pyright: ignore[reportArgumentType]


@functools.cache
def _config(workdir: Path) -> Any:
    return read_config(workdir)


@functools.cache
def _like(workdir: Path) -> Any:
    config = _config(workdir)
    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    return build.abstract_state(learner, optimiser, np.zeros((2, 16, 16, 3), np.uint8), parallel.task_mesh(1))


def checkpoints(rng: np.random.Generator, place: Place) -> Call:
    """A run one of whose checkpoint's files is damaged, lost or another's."""
    paths = sorted(path for path in (place.copy / "checkpoints").rglob("*") if path.is_file())
    path = paths[rng.integers(0, len(paths))]
    kind = rng.integers(0, 6)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(paths[rng.integers(0, len(paths))].read_bytes())
    elif path.name == "metrics":
        path.write_bytes(changed_json_file(rng, path.read_bytes()))
    else:
        path.write_bytes(changed_bytes(rng, path.read_bytes()))
    if rng.integers(0, 5) == 0:
        return lambda: cx.load_run(place.copy)

    def read():
        found = Checkpoints(place.copy, 1, read_only=True)
        for iteration in found.best():
            found.restore(iteration, _like(place.run))
        found.close()

    return read


@functools.cache
def _saved(run: Path) -> bytes:
    found = cx.load_run(run)
    path = run.parent / "saved.safetensors"
    cx.save(path, found.learner, found.params)
    return path.read_bytes()


def safetensors(rng: np.random.Generator, place: Place) -> Call:
    """A damaged file of ``cx.save``: its bytes, or what its header says of the learner."""
    content, path = _saved(place.run), place.folder / "a.safetensors"
    if rng.integers(0, 3) == 0:
        path.write_bytes(changed_bytes(rng, content))
    else:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        spec = json.loads(header["__metadata__"]["learner"])
        if rng.integers(0, 4) == 0:
            header = changed_json(rng, header)
        else:
            header["__metadata__"]["learner"] = json.dumps(changed_json(rng, spec))
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    return lambda: cx.load(path)


@functools.cache
def _official(run: Path) -> dict[str, np.ndarray]:
    return interop.to_official(jax.device_get(cx.load_run(run).params), "cxgrad")


def official_weights(rng: np.random.Generator, place: Place) -> Call:
    """A state dict of the official code with other names, shapes or kinds of arrays, or a damaged file of one."""
    arrays: dict[Any, Any] = dict(_official(place.run))
    if rng.integers(0, 6) == 0:
        path = place.folder / "train_model_latest"
        path.write_bytes(changed_bytes(rng, pickle.dumps(arrays)))
        return lambda: interop.load_official(path, "cxgrad")
    for _ in range(rng.integers(1, 4)):
        name = list(arrays)[rng.integers(0, len(arrays))]
        kind = rng.integers(0, 6)
        if kind == 0:
            del arrays[name]
        elif kind == 1:
            arrays[str(any_value(rng)) if rng.integers(0, 2) else f"{name}x"] = arrays.pop(name)
        elif kind == 2:
            arrays[name] = np.zeros(tuple(rng.integers(0, 5, rng.integers(0, 5))))
        elif kind == 3:
            arrays[name] = np.asarray(arrays[name])[..., :0]
        elif kind == 4:
            arrays[name] = np.asarray(arrays[name]).T
        else:
            arrays[name] = any_value(rng)
    learner = ("cxgrad", "cxgrad", "cxgrad", "maml", "alfa", "l2f", "cavia", "boil")[rng.integers(0, 8)]
    return lambda: cx.interop.from_official(arrays, learner)


def configuration_files(rng: np.random.Generator, place: Place) -> Call:
    """A configuration file of this project with other characters."""
    paths = list(packaged().values())
    path = place.folder / "own.py"
    path.write_bytes(changed_bytes(rng, paths[rng.integers(0, len(paths))].read_bytes()))
    preset = ("", "", ":paper", ":", ":x")[rng.integers(0, 5)]
    return lambda: load_config(f"{path}{preset}")


def command_lines(rng: np.random.Generator, place: Place) -> Call:
    """A program with other flags. Where they are right all the same, the data are missing."""
    run, arguments = command_line(rng, place, Path.cwd())
    return lambda: run(arguments)


def command_line(rng: np.random.Generator, place: Place, here: Path) -> tuple[Callable[[list[str]], int], list[str]]:
    """A program and its changed flags. Paths start from ``here``, so that one cut short is none of this machine's."""
    folder, copy = (Path(os.path.relpath(path, here)) for path in (place.folder, place.copy))
    (place.folder / "file").write_text("")
    data = f"--config.data.dir={folder / 'file'}"  # not even the glyphs can be prepared there
    work = f"--workdir={folder / 'work'}"
    some = [f"--config.{field}={value}" for field, value in TINY.items() if rng.integers(0, 3) == 0]
    choices: list[tuple[Callable[[list[str]], int], list[str]]] = [
        (main.run, [work, *flags(folder / "file")]),
        (main.run, [work, "--config=mini_1shot:paper", data, *some]),
        (main.run, [work, "--config=baselines/alfa", data, *some]),
        (main.run, [f"--workdir={copy}", "--mode=evaluate", data, *some]),
        (main.run, [f"--workdir={copy}", "--mode=analyse", "--config.analysis.episodes=2", data]),
        (compare.run, ["--configs", "mini_1shot", "cxgrad_explicit", work, "--seeds", "2", data, *some]),
        (tables.run, ["1", work, "--seeds", "1", "--preset=paper", data, *some]),
        (prepare, ["image_folder", f"--source={folder / 'none'}", "--as_name=own", f"--data_dir={folder}"]),
        (prepare, ["cub", "--archive", str(folder / "x"), f"--data_dir={folder}", "--verbosity=error"]),
    ]  # fmt: skip
    run, arguments = choices[rng.integers(0, len(choices))]
    return run, changed_flags(rng, arguments)


def prepare(arguments: list[str]) -> int:
    """``data_prep``, which is never asked to download."""
    return data_prep.main([argument for argument in arguments if argument != "--download"])


def _pick(rng: np.random.Generator, choices: dict[str, bytes]) -> bytes:
    return list(choices.values())[rng.integers(0, len(choices))]
