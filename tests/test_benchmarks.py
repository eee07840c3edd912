"""The benchmarks' own arithmetic and their answers to mistakes; what they measure is in ``benchmarks/README.md``."""

import json
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("versus_official", ["--official", "nowhere"], "nowhere is no clone of shlee625/CxGrad"),
        ("versus_official", ["--official", "nowhere", "--setting", "mini"], "invalid choice: 'mini'"),
        ("what_a_prediction_sees", ["--learners", "nobody"], "invalid choice: 'nobody'"),
        ("precision", ["--data", "moon"], "unknown data set 'moon'"),
        ("scaling", ["--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
        (
            "ahead_of_time",
            ["--target", "h200"],
            "'h200' is no device that is known; expected v5e:2x2",
        ),
        (
            "ahead_of_time",
            ["--target", "h100", "--json", "no/such/folder/x.json"],
            "folder no/such/folder does not exist",
        ),
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


PROGRAM = """
%body {
  %p = u8[20,768]{1,0} get-tuple-element(%a), index=2
  %c = f32[2,8]{1,0} convolution(%x, %y), window={size=3x3}, dim_labels=b01f_01io->b01f
  %d = (f32[2,8]{1,0}, u8[0]) custom-call(%x), feature_group_count=4, custom_call_target="__cudnn$convForward"
  %r = f32[70]{0} all-reduce(%q), to_apply=%add
}
ENTRY %main {
  %k = u8[20,768]{0,1} copy(%arg)
  %w = (s32[], f32[7]) while(%t), body=%body
}
"""


def test_operations_of_a_program_for_an_absent_device_are_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.ahead_of_time import counts

    assert counts(PROGRAM, 20) == {
        "all_reduce": 1, "all_gather": 0, "store_copies": 1, "host_transfers": 0, "convolutions": 2,
        "grouped_convolutions": 1, "copies": 1, "loops": 1,
    }  # fmt: skip


@pytest.mark.parametrize("target", ["h100:4", "v5e:2x2"])
def test_a_small_step_for_absent_devices(target, tmp_path):
    done = benchmark("ahead_of_time", "--target", target, "--small", "--json", str(tmp_path / "found.json"))
    if "needs" in done.stderr and done.returncode == 2:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert "None of this is a speed" in done.stdout
    (found,) = json.loads((tmp_path / "found.json").read_text())
    expected = {"all_reduce": 1, "all_gather": 0, "store_copies": 0, "host_transfers": 0}
    assert {name: found[name] for name in expected} == expected, found
