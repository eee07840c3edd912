"""The command line as a user meets it: overrides, exit statuses, and one clear line for every mistake."""

import errno
import json
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from refusals import CONFIGS, REFUSALS, prepare, spoil
from runs import results, run, told

import data_prep.__main__ as data_prep
from cxgrad_jax import cli, command_line, interop, main
from cxgrad_jax.training import checks
from cxgrad_jax.training import config as configuration


def tell(words: list[str]) -> int:
    """Runs what ``words`` ask for in this process; returns the exit status."""
    match words:
        case "data_prep", *arguments:
            return data_prep.main(arguments)
        case "official", learner, name:
            arrays = {name: np.zeros((4, 3, 3, 3))}
            return command_line.exit_status(lambda: interop.from_official(arrays, learner))
        case _:
            return main.run(words)


def content(workdir: Path) -> dict[str, bytes]:
    """All files of a folder but the lock."""
    return {str(path): path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[0])
def test_a_mistake_is_told_in_one_line_and_changes_nothing(refusal, tiny_data, finished, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    _, command, words, *spoilt = refusal
    arguments = prepare(command, tiny_data, finished, tmp_path)
    for what in spoilt:
        spoil(tmp_path, *what)
    before = content(tmp_path / "run")
    capfd.readouterr()
    status = tell(arguments)
    lines = told(capfd.readouterr().err)
    if arguments[0] == "data_prep":
        lines = [line for line in lines if not re.match(r"[IW]\d{4} ", line)]  # it tells its progress
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


def test_a_path_that_may_not_be_used_is_told_in_one_line(capsys):
    def action():
        raise PermissionError(errno.EACCES, "Permission denied", "locked/config.json")

    assert command_line.exit_status(action) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cxgrad_jax: locked/config.json cannot be used: Permission denied; choose another path")


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
    assert text.startswith("usage: python -m cxgrad_jax.main [--mode=MODE] [--workdir=DIR] [--config=NAME]")
    for flag in ("--config NAME[:PRESET]", "--mode", "--question", "--dry_run", "--distributed", "--verbosity", "500"):
        assert flag in text


@pytest.mark.parametrize("mode", main.MODES)
def test_help_of_a_mode_needs_no_run_and_has_its_flags_alone(mode, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main.run([f"--mode={mode}", "--help"])
    text = capsys.readouterr().out
    assert not end.value.code and text.startswith(f"usage: cxgrad {mode} [--workdir=DIR] [--config=NAME]")
    assert "--workdir DIR" in text and "--mode" not in text
    assert ("--question" in text, "--dry_run" in text) == (mode == "evaluate", mode == "train")


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
    for empty in ("", "()"):
        config, _ = main.parse(["--mode=pretrain", f"--config.pretrain.drop_at={empty}"])
        checks.check(config)
        assert config.pretrain.drop_at == ()


def test_an_override_has_the_type_of_the_default_whatever_a_file_wrote(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from cxgrad_jax.training.config import *\n"
        "def get_config():\n"
        "  config = base_config()\n"
        "  config.learner = learner_config('cxgrad', context_lr=1)\n"
        "  config.model = model_config('conv4', dtype='bfloat16')\n"
        "  return config\n"
    )
    given = [f"--config={tmp_path / 'mine.py'}", "--config.learner.context_lr=0.5"]
    for text, expected in (("float16", "float16"), ("None", None), ("", None)):
        config, _ = main.parse([*given, f"--config.model.dtype={text}"])
        checks.check(config)
        assert (config.learner.context_lr, config.model.dtype) == (0.5, expected)
    assert main.parse(given)[0].model.dtype == "bfloat16"


def test_own_parts_are_named_with_a_space_or_an_equals_sign(tmp_path, monkeypatch):
    (tmp_path / "spaced.py").write_text("from cxgrad_jax.learners import maml as mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    for given in (["--config.learner.name=spaced.mine"], ["--config.learner.name", "spaced.mine"]):
        config, _ = main.parse(given)
        checks.check(config)
        assert config.learner.name == "spaced.mine" and "context_dim" not in config.learner


@pytest.mark.slow
def test_evaluate_elsewhere(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = content(tmp_path)
    elsewhere = ("--config.evaluation.data=other", "--config.evaluation.episodes=3", "--config.evaluation.ensemble=1")
    done = run(f"--workdir={tmp_path}", "--mode=evaluate", *elsewhere)
    assert done.returncode == 0 and "(3 tasks of other, ensemble of 1)" in done.stdout
    other = json.loads((tmp_path / "results_other_ensemble=1_episodes=3.json").read_text())
    assert (other["num_tasks"], other["ensemble_size"], other["test_data"]) == (3, 1, "other")
    assert other["params_sha256"] == results(finished)["params_sha256"]
    after, known = content(tmp_path), str(tmp_path / "data.json")
    assert set(json.loads(after.pop(known))) - set(json.loads(before.pop(known))) == {"other/test"}
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--dry_run=h200", "'h200' is not a known device"), ("--mode=evaluate", "--dry_run is of --mode=train")],
)
def test_dry_run_refuses_in_one_line(finished, flag, message):
    arguments = [f"--workdir={finished}", *(["--dry_run", flag] if "mode" in flag else [flag])]
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and len(told(done.stderr)) == 1


def test_ctrl_c_while_a_program_is_imported(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.runpy, "run_module", interrupted)
    monkeypatch.setattr(sys, "argv", ["cxgrad", "train"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.main() == 130 and capsys.readouterr().err == "cxgrad: interrupted\n"


def test_iterations_beyond_what_programs_count(capsys):
    assert main.run(["--mode=pretrain", "--config.pretrain.drop_at=99999999999", "--workdir=never_written"]) == 2
    assert "pretrain.drop_at is (99999999999,); expected iterations, 1 to 2147483647" in capsys.readouterr().err
    assert not Path("never_written").exists()
