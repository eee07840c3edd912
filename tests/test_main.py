"""The command line as a user meets it: overrides, exit statuses, and one clear line for every mistake."""

import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from runs import flags, outcome, results, run, told

import data_prep.__main__ as data_prep
from cxgrad_jax import command_line, interop, main
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import checks
from cxgrad_jax.training import config as configuration

CONFIGS = Path(__file__).parents[1] / "configs"


class Place(NamedTuple):
    """Where a mistake is made: prepared data, a finished run, and an empty folder."""

    data: Path
    finished: Path
    folder: Path

    def flags(self, **changes: Any) -> list[str]:
        """Flags of a tiny run in ``folder/run``."""
        return flags(self.data, self.folder / "run", **changes)

    def config(self, text: str) -> list[str]:
        """A configuration file of this content."""
        path = self.folder / "config.py"
        path.write_text(f"from cxgrad_jax.training.config import *\n{text}\n")
        return [f"--config={path}", f"--workdir={self.folder / 'run'}"]

    def train(self, spoil: Callable[[Path], Any], **changes: Any) -> list[str]:
        """Goes on with a copy of the finished run that ``spoil`` changed."""
        return [*self._spoilt(spoil), *flags(self.data, self.folder / "run", **changes)[1:]]

    def evaluate(self, spoil: Callable[[Path], Any], *overrides: str) -> list[str]:
        """Evaluates a copy of the finished run that ``spoil`` changed."""
        return [*self._spoilt(spoil), "--mode=evaluate", *overrides]

    def _spoilt(self, spoil: Callable[[Path], Any]) -> list[str]:
        shutil.copytree(self.finished, self.folder / "run")
        spoil(self.folder / "run")
        return [f"--workdir={self.folder / 'run'}"]


def cut(pattern: str) -> Callable[[Path], Any]:
    """Cuts the file of the newest checkpoint in half."""

    def spoil(workdir: Path) -> None:
        (path,) = (workdir / "checkpoints" / "16").glob(pattern)
        os.truncate(path, path.stat().st_size // 2)

    return spoil


def remove(pattern: str) -> Callable[[Path], Any]:
    """Removes the file of the newest checkpoint."""
    return lambda workdir: next((workdir / "checkpoints" / "16").glob(pattern)).unlink()


def flip(workdir: Path) -> None:
    """Changes one bit of the newest checkpoint's arrays."""
    path = max((workdir / "checkpoints" / "16" / "default" / "d").iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def occupy(workdir: Path) -> None:
    """Makes this process hold the workdir, until the test lets go of it."""
    HELD.append((workdir / ".lock").open("w"))
    fcntl.flock(HELD[-1], fcntl.LOCK_EX)


HELD: list[Any] = []


def nothing(workdir: Path) -> None:
    """Leaves the run as it is."""


def write(name: str, text: str) -> Callable[[Path], Any]:
    return lambda workdir: (workdir / name).write_text(text)


def edit(field: str, value: Any) -> Callable[[Path], Any]:
    """Changes a field of ``config.json``."""

    def spoil(workdir: Path) -> None:
        saved = json.loads((workdir / "config.json").read_text())
        section, name = field.split(".")
        saved[section][name] = value
        (workdir / "config.json").write_text(json.dumps(saved))

    return spoil


def official(name: str = "", learner: str = "cxgrad", **arrays: Any) -> Callable[[], Any]:
    """Reads an official state dict of one array."""
    given = {name: np.zeros((4, 3, 3, 3))} if name else arrays
    return lambda: interop.from_official(given, learner=learner)


def folder(place: Place, *files: str) -> list[str]:
    """Prepares a folder that holds these files, of the content "no image"."""
    for name in files:
        (place.folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (place.folder / "images" / name).write_text("no image")
    return [
        "data_prep", "image_folder", "--source", str(place.folder / "images"), "--as_name", "mine",
        "--data_dir", str(place.folder / "data"),
    ]  # fmt: skip


def archive(place: Place, name: str, content: bytes, *data_set: str) -> list[str]:
    """Prepares a data set from one archive of this content."""
    (place.folder / name).write_bytes(content)
    return ["data_prep", *data_set, "--archive", str(place.folder / name), "--data_dir", str(place.folder / "data")]


# By what is wrong: what makes the arguments (of ``data_prep`` where they start with it) or a call; words of the line.
MISTAKES: dict[str, tuple[Callable[[Place], Any], str]] = {
    "unknown flag": (lambda p: [*p.flags(), "--iterations=5"], "argument --iterations is unknown; did you mean"),
    "stray argument": (lambda p: [*p.flags(), "fast"], "argument fast is unknown; --help"),
    "unknown field": (
        lambda p: [*p.flags(), "--config.train.iteration=5"],
        "--config.train.iteration is unknown; did you mean --config.train.iterations?",
    ),
    "number for whole number": (
        lambda p: p.flags(train__iterations=1.5),
        "--config.train.iterations: '1.5' is not a whole",
    ),
    "text for whole number": (lambda p: p.flags(episode__way="five"), "--config.episode.way: 'five' is not a whole"),
    "text for number": (
        lambda p: p.flags(learner__inner_lr="high"),
        "--config.learner.inner_lr: 'high' is not a finite",
    ),
    "number for true or false": (
        lambda p: p.flags(learner__remat=2),
        "--config.learner.remat: '2' is not true or false",
    ),
    "text for whole numbers": (
        lambda p: [f"--config={CONFIGS / 'mini_1shot_resnet12.py'}", "--config.model.channels=big"],
        "--config.model.channels: 'big' is not whole numbers",
    ),
    "flag without value": (lambda p: [*p.flags(), "--config.seed"], "--config.seed: expected one argument"),
    "unknown mode": (lambda p: [*p.flags(), "--mode=test"], "--mode: invalid choice: 'test' (choose from"),
    "empty workdir": (lambda p: [*p.flags()[1:], "--workdir="], "--workdir is empty; give the folder of the run"),
    "no such configuration": (
        lambda p: ["--config=configs/none.py"],
        "configs/none.py is neither a file nor the name of a configuration; ",
    ),
    "syntax error": (lambda p: p.config("def get_config(:"), "config.py, line 2: SyntaxError: invalid syntax"),
    "no get_config": (lambda p: p.config("config = 1"), "config.py defines no get_config(); see configs/"),
    "get_config raises": (
        lambda p: p.config("def get_config():\n  1 / 0"),
        "config.py, line 3: ZeroDivisionError: division",
    ),
    "get_config gives a dict": (
        lambda p: p.config("def get_config():\n  return {}"),
        "returns a dict; expected a ConfigDict",
    ),
    "unknown preset": (
        lambda p: [f"--config={CONFIGS / 'mini_1shot.py'}:foo", f"--workdir={p.folder / 'run'}"],
        "preset 'foo' is unknown; write --config=FILE:PRESET with one of paper",
    ),
    "new field in a file": (
        lambda p: p.config("def get_config():\n  c = base_config(); c.train.learningrate = 1.0; return c"),
        "train.learningrate is no field; did you mean train.learning_rate?",
    ),
    "section of a file without a field": (
        lambda p: p.config("def get_config():\n  c = base_config(); c.episode = ConfigDict(dict(way=2.5)); return c"),
        "episode.query is missing in the configuration; expected a whole number",
    ),
    "learner of another name": (
        lambda p: p.flags(learner__name="maml"),
        "learner.context_dim is no field of maml; expected first_order, inner_lr",
    ),
    "unknown learner": (
        lambda p: p.flags(learner__name="reptile"),
        "learner.name is 'reptile'; expected one of alfa, anil, baseline_plus_plus,",
    ),
    "unknown norm": (
        lambda p: p.flags(model__norm="instance"),
        "model.norm is 'instance'; expected one of batch, layer",
    ),
    "negative rate": (lambda p: p.flags(train__learning_rate=-1.0), "train.learning_rate is -1.0; expected a positive"),
    "rate that is no number": (
        lambda p: p.flags(learner__context_lr="nan"),
        "learner.context_lr is nan; expected a finite",
    ),
    "one class": (lambda p: p.flags(episode__way=1), "episode.way is 1; expected at least 2"),
    "more ways than classes": (
        lambda p: p.flags(episode__way=7),
        "way is 7, but tiny, split train has 6 classes",
    ),
    "more shots than images": (
        lambda p: p.flags(episode__shot=4),
        "shot + query is 4 + 2 = 6, but the smallest class of tiny",
    ),
    "images too small": (
        lambda p: p.flags(data__image_size=8),
        "data.image_size is 8: images have shape (2, 8, 8, 3); expected [N, H, W, C] with H and W at least 16",
    ),
    "unknown data set": (
        lambda p: p.flags(data__name="omniglott"),
        "unknown data set 'omniglott': did you mean omniglot?",
    ),
    "data set not prepared": (
        lambda p: p.flags(data__name="cub"),
        "run `python -m data_prep cub --download --image_size 16",
    ),
    "size not prepared": (lambda p: p.flags(data__image_size=20), "tiny is not prepared in"),
    "test images of other channels": (
        lambda p: p.flags(evaluation__data="omniglot"),
        "evaluation.data is 'omniglot', whose images have other channels",
    ),
    "too many devices": (lambda p: p.flags(parallel__num_devices=9), "parallel.num_devices is 9, but 4 are visible"),
    "devices that do not divide the tasks": (
        lambda p: p.flags(parallel__num_devices=4),
        "train.meta_batch is 2, not a multiple of the 4 devices",
    ),
    "chunk that does not divide the tasks": (
        lambda p: p.flags(parallel__tasks_per_chunk=3),
        "parallel.tasks_per_chunk is 3; expected a divisor of the 2 tasks",
    ),
    "workdir is a file": (
        lambda p: (p.folder / "run").write_text("") and [] or p.flags(),
        "cannot be written: File exists",
    ),
    "workdir below a file": (
        lambda p: (p.folder / "file").write_text("") and [] or flags(p.data, p.folder / "file" / "run"),
        "Not a directory",
    ),
    "workdir in use": (lambda p: p.train(occupy), "run is in use by another run; wait for it"),
    "workdir of another configuration": (
        lambda p: p.train(nothing, train__meta_batch=4, seed=1),
        "(seed: 1, not 0; train.meta_batch: 4, not 2); choose another folder: --workdir=",
    ),
    "config.json cut short": (
        lambda p: p.train(write("config.json", '{"seed":')),
        "config.json is damaged (Expecting value",
    ),
    "config.json of something else": (lambda p: p.train(write("config.json", "[1]")), "config.json is damaged ("),
    "config.json with a wrong type": (
        lambda p: p.evaluate(edit("train.meta_batch", "2")),
        "config.json: train.meta_batch is '2'; expected a whole number",
    ),
    "checkpoints without config.json": (
        lambda p: p.train(lambda workdir: (workdir / "config.json").unlink()),
        "has checkpoints but no config.json",
    ),
    "checkpoint's arrays cut short": (lambda p: p.train(cut("default/d/*")), "checkpoints/16 is damaged ("),
    "checkpoint's arrays removed": (
        lambda p: p.train(remove("default/d/*")),
        "delete that folder to go on from the one",
    ),
    "checkpoint's arrays changed": (lambda p: p.train(flip), "checkpoints/16 is damaged ("),
    "checkpoint's manifest cut short": (
        lambda p: p.train(cut("default/manifest.ocdbt")),
        "checkpoints/16 is damaged (",
    ),
    "checkpoint's metadata cut short": (lambda p: p.train(cut("default/_METADATA")), "checkpoints/16 is damaged ("),
    "checkpoint's accuracy cut short": (lambda p: p.evaluate(cut("metrics/metrics")), "checkpoints/16 is damaged ("),
    "checkpoint's accuracy removed": (lambda p: p.evaluate(remove("metrics/metrics")), "checkpoints/16 is damaged ("),
    "evaluating nothing": (
        lambda p: [f"--workdir={p.folder / 'run'}", "--mode=evaluate"],
        "config.json does not exist; --workdir must be the",
    ),
    "evaluating before a checkpoint": (
        lambda p: p.evaluate(lambda workdir: shutil.rmtree(workdir / "checkpoints")),
        "checkpoints has no checkpoint; train",
    ),
    "evaluating another configuration": (
        lambda p: p.evaluate(nothing, "--config.train.meta_batch=9", "--config.evaluation.episodes=3"),
        "holds a run of another configuration (train.meta_batch: 9, not 2)",
    ),
    "evaluating with a configuration file": (
        lambda p: p.evaluate(nothing, f"--config={CONFIGS / 'glyphs_1shot.py'}"),
        "data.image_size: 28, not 16; data.name: 'glyphs', not 'tiny'; ",
    ),
    "evaluating on images of other channels": (
        lambda p: p.evaluate(nothing, "--config.evaluation.data=omniglot"),
        "are the images of the size and channels trained",
    ),
    "evaluating on an unknown data set": (
        lambda p: p.evaluate(nothing, "--config.evaluation.data=moon"),
        "unknown data set 'moon': expected one of",
    ),
    "no TensorBoard": (
        lambda p: p.flags(train__tensorboard=True),
        "needs tensorboardX: pip install 'cxgrad_jax[tensorb",
    ),
    "archive that is none": (
        lambda p: archive(p, "images.zip", b"no zip", "mini_imagenet"),
        "images.zip cannot be read as",
    ),
    "archive cut short": (lambda p: archive(p, "x.tar.gz", b"\x1f\x8b\x08", "cifar_fs"), "x.tar.gz cannot be read as"),
    "archive that is not there": (
        lambda p: ["data_prep", "cub", "--archive", str(p.folder / "none.tgz"), "--data_dir", str(p.folder)],
        "none.tgz",
    ),
    "folder without val": (
        lambda p: folder(p, "train/a/0.png", "test/c/0.png"),
        "val is missing; expected",
    ),
    "damaged image": (lambda p: folder(p, "train/a/0.png", "val/b/0.png", "test/c/0.png"), "a/0.png"),
    "class in two splits": (
        lambda p: folder(p, "train/a/0.png", "val/a/0.png", "test/c/0.png"),
        "in both train and val",
    ),
    "class without images": (
        lambda p: folder(p, "train/a/0.txt", "val/b/0.png", "test/c/0.png"),
        "train/a holds no .bmp",
    ),
    "official name that is none": (
        lambda p: official("conv0.weight"),
        "'conv0.weight' is no parameter of the official",
    ),
    "official parameters missing": (
        lambda p: official("classifier.layer_dict.conv0.conv.weight"),
        "is missing; is it a complete cxgrad checkpoint?",
    ),
    "official learner that is none": (
        lambda p: official("x", learner="leo"),
        "learner 'leo' has no official format here",
    ),
}


def tell(arguments: Any) -> int:
    """Makes the mistake; returns the exit status."""
    if callable(arguments):
        try:
            arguments()
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    return data_prep.main(arguments[1:]) if arguments[0] == "data_prep" else main.run(arguments)


def content(workdir: Path) -> dict[str, bytes]:
    """All files of a folder but the lock."""
    return {str(path): path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_changes_nothing(mistake, tiny_data, finished, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    make, words = MISTAKES[mistake]
    arguments = make(Place(tiny_data, finished, tmp_path))
    before = content(tmp_path / "run")
    capfd.readouterr()
    status = tell(arguments)
    lines = told(capfd.readouterr().err)
    if not callable(arguments) and arguments[0] == "data_prep":
        lines = [line for line in lines if not re.match(r"[IW]\d{4} ", line)]  # it tells its progress
    while HELD:
        HELD.pop().close()
    assert (status, len(lines)) == (2, 1), lines
    assert words in lines[0] and len(lines[0]) < 400 and "Traceback" not in lines[0]
    assert content(tmp_path / "run") == before
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob(".*.tmp"))


def test_status_of_a_process_that_a_mistake_ends(tmp_path):
    done = run(f"--workdir={tmp_path / 'run'}", "--config.train.iterations=many")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "cxgrad_jax: --config.train.iterations: 'many' is not a whole number\n"
    assert not (tmp_path / "run").exists()


def test_status_of_a_process_that_a_defect_ends(tmp_path):
    done = run(f"--workdir={tmp_path}", before="from cxgrad_jax.training import checks; checks.check = None")
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.\nMore")]
)
def test_memory_that_does_not_suffice_is_told_in_one_line(error, capsys):
    def action():
        raise error

    assert command_line.exit_status(action) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cxgrad_jax: memory does not suffice (") and "train.meta_batch" in line


def test_another_failure_of_a_device_is_a_defect():
    def action():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError):
        command_line.exit_status(action)


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        main.run(["--help"])
    assert not end.value.code
    text = capsys.readouterr().out
    for flag in ("--config NAME[:PRESET]", "--workdir", "--mode", "--distributed", "--verbosity", "500"):
        assert flag in text


def test_without_a_configuration_the_embedded_one_runs():
    config, given = main.parse([])
    assert config == configuration.glyphs_config() == main.load_config(str(CONFIGS / "glyphs_1shot.py"))
    assert (given.workdir, given.mode, given.distributed) == ([Path("runs/glyphs_1shot")], "train", False)


def test_overrides_have_the_type_of_their_field():
    arguments = [
        f"--config={CONFIGS / 'mini_1shot_resnet12.py'}:paper", "--workdir=x", "--config.learner.first_order",
        "--config.learner.remat=true", "--config.model.channels=8,16,32,64", "--config.train.learning_rate=1",
        "--config.evaluation.data=cub", "--config.seed", "7", "--config.data.dir=",
    ]  # fmt: skip
    config, _ = main.parse(arguments)
    checks.check(config)
    assert config.learner.first_order is config.learner.remat is True
    assert config.model.channels == (8, 16, 32, 64) and config.train.task_reduction == "sum"
    assert isinstance(config.train.learning_rate, float) and config.evaluation.data == "cub" and config.seed == 7
    config, _ = main.parse([*arguments, "--config.model.channels=(8, 8, 8, 8)", "--config.learner.first_order=False"])
    assert config.model.channels == (8, 8, 8, 8) and config.learner.first_order is False


def test_evaluate_again_and_elsewhere(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "results.json").unlink()
    before = content(tmp_path)
    assert run(f"--workdir={tmp_path}", "--mode=evaluate").returncode == 0
    assert outcome(tmp_path) == outcome(finished)

    elsewhere = ("--config.evaluation.data=other", "--config.evaluation.episodes=3", "--config.evaluation.ensemble=1")
    done = run(f"--workdir={tmp_path}", "--mode=evaluate", *elsewhere)
    assert done.returncode == 0 and "(3 tasks of other, ensemble of 1)" in done.stdout
    other = json.loads((tmp_path / "results_other.json").read_text())
    assert (other["num_tasks"], other["ensemble_size"], other["test_data"]) == (3, 1, "other")
    assert other["params_sha256"] == results(finished)["params_sha256"]
    after = content(tmp_path)
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 2


def test_dry_run_tells_the_memory_and_writes_nothing(tiny_data, tmp_path):
    done = run(*flags(tiny_data, tmp_path / "run"), "--dry_run")
    assert done.returncode == 0, done.stderr
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in done.stdout.splitlines()[:-1])
    assert re.fullmatch(r"\d+\.\d MB, with the optimiser's state \d+\.\d MB", lines["parameters"])
    assert lines["store"] == "0.0 MB, on the host" and lines["temporaries"].endswith("4 task(s) a device")
    assert done.stdout.splitlines()[-1] == "This is the compiler's analysis; nothing ran."
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--dry_run=h200", "'h200' is no device that is known"), ("--mode=evaluate", "--dry_run is of --mode=train")],
)
def test_dry_run_refuses_in_one_line(finished, flag, message):
    arguments = [f"--workdir={finished}", *(["--dry_run", flag] if "mode" in flag else [flag])]
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and len(told(done.stderr)) == 1
