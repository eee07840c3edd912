"""The README's Python blocks run, and what it names exists."""

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_library_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(tmp_path))  # the glyphs are drawn there
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block.replace("range(20)", "range(1)"), names)
    assert names["logits"].shape == (75, 5)
    assert 0 <= float(names["metrics"]["accuracy"]) <= 1


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/\w+\.py|docs/\w+\.png", README))))
def test_named_files_exist(path):
    assert (Path(__file__).parents[1] / path).is_file()
