"""The README's Python blocks run, the learner of one's own too, and what it names exists."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cxgrad_jax.data.datasets import glyphs

README = (Path(__file__).parents[1] / "README.md").read_text()
SHORTER = {"iterations=20": "iterations=1", "episodes=100": "episodes=20", "num_steps=5": "num_steps=1",
           "cxgrad(model)": "cxgrad(model, num_steps=1)"}  # fmt: skip


def test_library_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(tmp_path))  # the glyphs are drawn there
    monkeypatch.setattr(glyphs, "IMAGES_PER_CLASS", 16)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(?!# \w+\.py)(.*?)```", README, re.S):  # but those that are files
        for given, shorter in SHORTER.items():
            block = block.replace(given, shorter)
        exec(block, names)
    assert names["logits"].shape == (75, 5)
    assert 0 <= float(names["metrics"]["accuracy"]) <= 1


@pytest.mark.slow
def test_the_learner_of_ones_own_works_word_for_word(tmp_path, monkeypatch):
    section = (Path(__file__).parents[1] / "docs" / "how_to" / "own_learner.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", section, re.S):
        (tmp_path / block.split()[1]).write_text(block)
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(tmp_path))
    short = "--config.train.iterations=2 --config.train.epoch_iterations=1 --config.evaluation.val_episodes=20"
    commands = re.findall(r"^    (python .*)$", section, re.M)
    assert len(commands) == 2
    for command in commands:
        if "cxgrad_jax.main" in command:
            command = f"{command} {short} --config.evaluation.episodes=20"
        done = subprocess.run(
            [sys.executable, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "test accuracy" in done.stdout
    assert (tmp_path / "runs" / "sign_maml" / "results.json").is_file()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"configs/(?:baselines/|ablations/)?[a-z]\w+\.py|docs/[\w/]+\.(?:png|md)", README)))
)
def test_named_files_exist(path):
    assert (Path(__file__).parents[1] / path).is_file()


def test_the_repository_has_one_address():
    root = Path(__file__).parents[1]
    files = [root / "setup.cfg", root / "README.md", *root.glob("docs/**/*.md"), *root.glob("notebooks/*.py")]
    owners = {owner for file in files for owner in re.findall(r"github\.com/([\w-]+)/cxgrad_jax", file.read_text())}
    assert len(owners) == 1
