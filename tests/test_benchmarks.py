"""The benchmarks' own arithmetic and their answers to mistakes; what they measure is in ``benchmarks/README.md``."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def benchmark(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *flags], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("versus_official", ["--official", "nowhere"], "nowhere is no clone of shlee625/CxGrad"),
        ("versus_official", ["--official", "nowhere", "--setting", "mini"], "invalid choice: 'mini'"),
        ("what_a_prediction_sees", ["--learners", "nobody"], "invalid choice: 'nobody'"),
        ("precision", ["--data", "moon"], "unknown data set 'moon'"),
        ("scaling", ["--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
        ("profile", ["--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
    ],
)
def test_a_mistake_gets_one_line(name, flags, message):
    done = benchmark(name, *flags)
    assert done.returncode == 2 and message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_cost_of_a_program_counts_loops_and_both_kinds_of_products(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.profile import cost

    images, kernel, matrix = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5)), jnp.ones((16, 16))

    def program(images, kernel, matrix):
        dimensions = ("NHWC", "HWIO", "NHWC")
        maps = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        return maps, jax.lax.scan(lambda m, _: (m @ matrix, None), matrix, length=7)[0]

    gflop, gbytes, seconds = cost(jax.jit(program).trace(images, kernel, matrix).jaxpr, {
        "product_gflops": 1e-3, "copy_gbs": 1e9,
    })  # fmt: skip
    expected = 2 * 2 * 8 * 8 * 5 * 27 + 7 * 2 * 16**3
    np.testing.assert_allclose(gflop * 1e9, expected)
    np.testing.assert_allclose(seconds * 1e6, expected)  # at 1 MFLOP/s
    np.testing.assert_allclose(gbytes * 1e9, 4 * (2 * 64 * 3 + 135 + 2 * 64 * 5 + 7 * 3 * 256))
