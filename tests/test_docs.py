"""The Python blocks of the documentation run, and it names only commands and files that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cxgrad_jax.cli import PROGRAMS
from cxgrad_jax.training.config import analysis_config, fields
from cxgrad_jax.training.config_files import load_config

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for folder in (DOCS, DOCS / "how_to", DOCS / "explanation") for path in folder.glob("*.md"))
ELSEWHERE = ("start.md", "photos.md")  # tests/test_readme.py and tests/photos have their lines
WITH_CODE = [page for page in PAGES if "```python" in page.read_text() and page.name not in ELSEWHERE]


@pytest.mark.slow_except("own_backbone.md", "own_data.md", "questions.md")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(tmp_path))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "glyphs_1shot").symlink_to(finished)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(?!# \w+\.py)(.*?)```", page.read_text(), re.S):
        short = block.replace("iterations=500", "iterations=1")
        exec(short.replace("(learner, params, test)", "(learner, params, test, episodes=20)"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_existing_configurations_and_fields(page):
    commands = re.findall(r"^(?:    |srun )(cxgrad (?:.*\\\n)*.*)$", page.read_text(), re.M)
    for command in commands:
        word, *flags = shlex.split(command.replace("\\\n", " "))[1:]
        assert word in PROGRAMS, command
        names = [flag.partition("=")[2] for flag in flags if flag.startswith("--config=")]
        known = fields(load_config("glyphs_1shot")) if not names or ".py" in names[0] else fields(load_config(names[0]))
        if word == "analyse":
            known = known | {f"analysis.{field}": value for field, value in fields(analysis_config()).items()}
        for flag in flags:
            field = flag.partition("=")[0].removeprefix("--config.")
            is_own = any(re.match(rf"--config\.{field.split('.')[0]}\.name=\w+\.\w+$", each) for each in flags)
            if flag.startswith("--config.") and not is_own:
                assert field in known, f"{command}: {field}"
