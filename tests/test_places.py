"""The programs where their users are: without an installation or a home, from another folder, as a console command."""

import configparser
import io
import json
import os
import pwd
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import logging
from runs import environment, told

import cxgrad_jax
from cxgrad_jax import cli, command_line, runtime
from cxgrad_jax.accounts import accounts_without_names
from cxgrad_jax.data import _layout
from cxgrad_jax.data.datasets import facts
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import config_files

ROOT = Path(__file__).parents[1]
LINE = "python -m cxgrad_jax.main --config=configs/tiered_1shot.py"  # the mission's, word for word


def start(line: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command line that begins with ``python``, in ``cwd``, with the source tree on the path."""
    words = line.split()
    assert words[0] == "python"
    return subprocess.run(
        [sys.executable, *words[1:]], cwd=cwd, env={**environment(), "PYTHONPATH": str(ROOT), **variables},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


def test_the_mission_s_line_without_data_is_refused_in_one_line(tmp_path):
    done = start(LINE, tmp_path, CXGRAD_DATA_DIR=str(tmp_path / "data"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "tiered_imagenet is not prepared" in done.stderr
    assert "`python -m data_prep tiered_imagenet " in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """A data directory with tieredImageNet as it is when prepared, but 6 classes of 16 images a split."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    folder, sizes = _layout.location("tiered_imagenet", 84, root), {}
    folder.mkdir(parents=True)
    for split, synsets in facts.class_lists("tiered_imagenet").items():
        sizes[split] = {synset: 16 for synset in synsets[:6]}
        colours = rng.integers(0, 256, (6, 1, 1, 1, 3)) + rng.integers(-40, 40, (6, 16, 84, 84, 3))
        np.save(_layout.array_path(folder, split), colours.clip(0, 255).astype(np.uint8).reshape(-1, 84, 84, 3))
    _layout.write_index(folder, sizes, [])
    return root


@pytest.mark.slow
def test_the_mission_s_line_trains_and_ends_in_an_accuracy(miniature, tmp_path):
    """The line stands word for word, in an empty folder; after it come only fields that make the run short and small.

    The bare line would train for 125,000 iterations: that it starts is the next test.
    """
    smaller = {
        "train.iterations": 2, "train.epoch_iterations": 1, "train.meta_batch": 1, "model.features": 4,
        "learner.num_steps": 1, "episode.query": 2,
        "evaluation.episodes": 4, "evaluation.val_episodes": 4, "evaluation.ensemble": 2,
    }  # fmt: skip
    line = " ".join([LINE, *(f"--config.{field}={value}" for field, value in smaller.items())])
    done = start(line, tmp_path, CXGRAD_DATA_DIR=str(miniature))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"test accuracy \d+\.\d\d % ± \d+\.\d\d \(4 tasks of tiered_imagenet, ensemble of 2\)",
        done.stdout.strip().splitlines()[-1],
    )
    assert "runs/tiered_1shot" in done.stdout + done.stderr  # told
    assert (tmp_path / "runs" / "tiered_1shot" / "results.json").is_file()


def test_the_mission_s_line_as_it_is_starts_the_published_run(miniature, tmp_path):
    """Nothing is added to the line. The process is killed once it says that it starts, before it compiles anything."""
    environ = {**environment(), "PYTHONPATH": str(ROOT), "CXGRAD_DATA_DIR": str(miniature), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *LINE.split()[1:]], cwd=tmp_path, env=environ,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout and "runs/tiered_1shot: starting" in process.stdout.readline()
        written = json.loads((tmp_path / "runs" / "tiered_1shot" / "config.json").read_text())
    finally:
        process.kill()
        process.communicate()
    expected = json.loads(config_files.load_config("tiered_1shot").to_json())
    assert {name: value for name, value in written.items() if name != "format"} == expected
    assert (written["train"]["iterations"], written["data"]["name"]) == (125_000, "tiered_imagenet")


@pytest.mark.slow_except("-m cxgrad_jax.main --help")
@pytest.mark.parametrize("words", ["-m cxgrad_jax.main --help", "-m cxgrad_jax.cli --help", "-m data_prep --list"])
def test_from_the_path_alone_without_a_home_or_an_installation(words, tmp_path):
    """-S leaves .pth files unread, and with them an editable installation; the libraries come by the path."""
    libraries = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    variables = {name: value for name, value in environment().items() if name not in ("HOME", "CXGRAD_DATA_DIR")}
    done = subprocess.run(
        [sys.executable, "-S", *words.split()], cwd=tmp_path, env={**variables, "PYTHONPATH": libraries},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0 and not told(done.stderr), done.stderr
    assert "train" in done.stdout and not list(tmp_path.iterdir())


def test_weights_are_found_from_the_path_alone(tmp_path):
    libraries = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    code = "import cxgrad_jax as cx; from cxgrad_jax import weight_files as w; print(*w.bundled()); cx.load('nowhere')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env={**environment(), "PYTHONPATH": libraries},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    names = sorted(path.stem for path in ROOT.glob("weights/*.safetensors"))
    assert done.stdout.split() == names
    line = done.stderr.splitlines()[-1]
    assert "nowhere is neither a file nor the name of bundled weights" in line and line.endswith(", ".join(names))


def test_without_a_home_programs_are_not_kept(monkeypatch):
    def none(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("CXGRAD_COMPILATION_CACHE", raising=False)
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        runtime.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir is None  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)


def test_a_home_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CXGRAD_COMPILATION_CACHE", "~/kept")
    (tmp_path / "mine.py").touch()
    assert config_files.find("~/mine.py") == tmp_path / "mine.py"
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        runtime.keep_compiled_programs()
        assert (tmp_path / "kept").is_dir()
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)


def test_without_an_account_there_is_no_home_while_tfds_prepares(monkeypatch):
    def none(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", none)
    with accounts_without_names():
        assert pwd.getpwuid(54321).pw_name == "54321"
        with pytest.raises(RuntimeError, match="home"):  # which matplotlib expects
            Path.home()


def test_configurations_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = {path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in ROOT.glob("configs/**/*.py")}
    assert set(config_files.packaged()) == expected
    for name, spelling in (
        ("tiered_1shot", "tiered_1shot"), ("tiered_1shot", "configs/tiered_1shot.py"),
        ("tiered_1shot", "./configs/tiered_1shot.py"), ("baselines/alfa", "baselines/alfa"),
        ("baselines/alfa", "configs/baselines/alfa"), ("baselines/alfa", "baselines/alfa.py"),
    ):  # fmt: skip
        assert config_files.find(spelling) == ROOT / "configs" / f"{name}.py"
    assert config_files.config_name("tiered_1shot:paper") == "tiered_1shot-paper"
    assert config_files.config_name("configs/baselines/alfa.py") == "alfa"
    preset = config_files.load_config("mini_1shot:paper")
    assert preset == config_files.load_config(f"{ROOT}/configs/mini_1shot.py:paper")


def test_a_folder_may_have_a_colon_in_its_name(tmp_path):
    folder = tmp_path / "{a}:b"
    folder.mkdir()
    (folder / "own.py").write_text((ROOT / "configs" / "mini_1shot.py").read_text())
    assert config_files.load_config(f"{folder}/own.py") == config_files.load_config("mini_1shot")
    assert config_files.load_config(f"{folder}/own.py:paper") == config_files.load_config("mini_1shot:paper")
    assert config_files.config_name(f"{folder}/own.py:paper") == "own-paper"


def test_a_file_of_the_user_s_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/tiered_1shot.py").write_text("")
    assert config_files.find("configs/tiered_1shot.py") == Path("configs/tiered_1shot.py")
    assert config_files.find("tiered_1shot") == ROOT / "configs" / "tiered_1shot.py"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tierd_1shot", "did you mean tiered_1shot"),
        ("alfa", "did you mean baselines/alfa?"),
        ("configs/baselines/mmal.py", "did you mean baselines/maml"),
        ("../configs/tiered_1shot", "did you mean tiered_1shot"),
        ("xyzzy", "expected one such as"),
    ],
)
def test_an_unknown_name_gets_its_neighbours(name, hint):
    with pytest.raises(UserError, match=re.escape(hint)) as error:
        config_files.find(name)
    assert "\n" not in str(error.value)


def test_installed_the_configurations_lie_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "cxgrad_jax" / "configs" / "baselines").mkdir(parents=True)
    (tmp_path / "cxgrad_jax" / "configs" / "baselines" / "own.py").write_text("")
    (tmp_path / "configs").mkdir()  # of another distribution
    (tmp_path / "configs" / "other.py").write_text("")
    monkeypatch.setattr(config_files, "PACKAGE", tmp_path / "cxgrad_jax")
    assert set(config_files.packaged()) == {"baselines/own"}


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--help"], 0, "usage: cxgrad COMMAND [FLAG ...]"),
        (["trian"], 2, "cxgrad: trian is not a command; did you mean train?"),
        (
            [],
            2,
            "cxgrad: give a command: one of train, pretrain, evaluate, analyse, compare, tables, prepare, photos",
        ),
        (["train", "--mode=evaluate"], 2, "cxgrad: --mode=evaluate is not for cxgrad train; the command is the mode"),
    ],
)
def test_commands_of_the_console_program(words, status, line, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cxgrad", *words])
    assert cli.main() == status
    told = capsys.readouterr()
    assert (told.out if status == 0 else told.err).splitlines()[0] == line and not (status and told.out)
    if status == 0:
        assert all(re.search(rf"^  {command} ", told.out, re.M) for command in cli.PROGRAMS)


@pytest.mark.slow
def test_the_console_command_is_the_programs(tmp_path):
    script = tmp_path / "bin" / "cxgrad"  # as an installer writes it
    script.parent.mkdir()
    script.write_text("import sys\nfrom cxgrad_jax.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    (tmp_path / "own.py").write_text(  # found from here, as python -m finds it
        "from cxgrad_jax.learners import maml\ndef mine(model, *, inner_lr=0.5):\n    return maml(model)\n"
    )
    environ = {name: value for name, value in environment().items() if name != "GLIBC_TUNABLES"}  # so that it restarts
    for words, line in (
        ("train --config.learner.name=own.other", "cxgrad_jax: learner.name is 'own.other'; own has no other"),
        ("train --config.learner.name=own.mine --config.learner.inner_lr=a", "cxgrad_jax: --config.learner.inner_lr"),
        ("evaluate --workdir=none", "cxgrad_jax: none/config.json does not exist"),
        ("compare", "cxgrad_jax: --configs is missing"),
        ("tables 9", "cxgrad_jax: NUMBER: invalid choice"),
        ("prepare moon", "cxgrad_jax: unknown data set 'moon'"),
    ):
        done = subprocess.run(
            [sys.executable, str(script), *words.split()], cwd=tmp_path,
            env={**environ, "PYTHONPATH": str(ROOT), "CXGRAD_DATA_DIR": str(tmp_path / "data")},
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and done.stderr.startswith(line), done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"bin", "own.py", "__pycache__"}


def test_warnings_are_shown_and_more_on_request(monkeypatch):
    def shown(*flags: str) -> list[str]:
        def action():
            parser = command_line.Parser()
            command_line.add_verbosity(parser)
            parser.parse_args(flags)
            for level in ("info", "warning", "error"):
                getattr(logging, level)("of %s", level)

        stderr = io.StringIO()
        monkeypatch.setattr(logging.get_absl_handler().python_handler, "stream", stderr)
        assert command_line.exit_status(action) == 0
        return re.findall(r"of (\w+)", stderr.getvalue())

    assert shown() == ["warning", "error"]
    assert shown("--verbosity=info") == ["info", "warning", "error"]
    assert shown("--verbosity=error") == ["error"]
    assert shown() == ["warning", "error"]  # a flag is for one command line


def test_the_metadata_name_every_package_and_the_versions_that_are_tested():
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    packages = metadata["options"]["packages"].split()
    there = {  # not in build, which making a wheel leaves behind
        path.parent.relative_to(ROOT) for top in ("cxgrad_jax", "data_prep") for path in ROOT.glob(f"{top}/**/*.py")
    }
    renamed = {path.parent.relative_to(ROOT) for top in ("configs", "weights") for path in ROOT.glob(f"{top}/**/*.py")}
    expected = {".".join(path.parts) for path in there} | {".".join(("cxgrad_jax", *path.parts)) for path in renamed}
    assert sorted(expected) == packages
    files = {path.suffix for path in (ROOT / "weights").iterdir() if path.is_file()} - {".py"}
    assert {f"*{suffix}" for suffix in files} <= {*metadata["options.package_data"]["cxgrad_jax.weights"].split()}
    oldest = dict(re.findall(r"^([\w-]+)==(.*)$", (ROOT / ".ci" / "oldest.txt").read_text(), re.M))
    options = metadata["options"]["install_requires"] + "".join(metadata["options.extras_require"].values())
    bounds = dict(re.findall(r"^([\w-]+)>=(.*)$", options, re.M))
    untested = {"torch", "pre-commit"}  # the first has no test here, the second is a tool
    assert {name: bound for name, bound in bounds.items() if name not in untested} == {
        name: version for name, version in oldest.items() if name != "jaxlib"
    }
    assert runpy.run_path(str(ROOT / "cxgrad_jax" / "__init__.py"))["__version__"] == cxgrad_jax.__version__
