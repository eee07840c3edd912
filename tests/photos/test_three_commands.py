"""From an empty folder to a labelled CSV: the commands of ``docs/photos.md``, in a fresh environment."""

import configparser
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import folder_of_shapes

ROOT = Path(__file__).parents[2]


def commands() -> list[str]:
    """The first block of commands of the documentation."""
    return re.findall(r"^    (\S.*)$", (ROOT / "docs" / "photos.md").read_text().split("\n## ")[1], re.M)[:3]


def address() -> str:
    """The address of the repository, as the package tells it."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return dict(line.split(" = ") for line in settings["metadata"]["project_urls"].split("\n") if line)["Repository"]


@pytest.mark.slow
def test_the_three_commands(tmp_path):
    published = f"git+{address()}"
    assert commands() == [
        f'pip install "cxgrad_jax[photos] @ {published}"',
        "cxgrad photos fit PHOTOS --out shop.safetensors",
        "cxgrad photos predict shop.safetensors NEW --csv out.csv",
    ]
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path / "probe"), "pip"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("the package index cannot be reached")
    place, binaries = tmp_path / "place", tmp_path / "fresh" / "bin"
    subprocess.run([sys.executable, "-m", "venv", str(binaries.parent)], check=True)
    folder_of_shapes(place / "PHOTOS", 5)
    folder_of_shapes(place / "NEW", 2, seed=9)
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "XLA_FLAGS")
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    variables["PATH"] = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    for line in commands():
        line = line.replace(published, ROOT.as_uri())  # this checkout in the place of the published one
        done = subprocess.run(line, shell=True, cwd=place, env=variables, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
    with (place / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and {row["best"] for row in rows} <= {"circle", "square", "triangle"}
    right = sum(Path(row["file"]).parts[-2] == row["best"] for row in rows)
    assert right >= 4  # of six; guessing has two
    assert sorted(path.name for path in place.iterdir()) == ["NEW", "PHOTOS", "out.csv", "shop.safetensors"]
