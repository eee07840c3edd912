"""The benchmarks' own arithmetic and their answers to mistakes; what they measure is in ``benchmarks/README.md``."""

import gzip
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
        ("versus_official", ["--official", "nowhere"], "nowhere is not a clone of shlee625/CxGrad"),
        ("versus_official", ["--official", "nowhere", "--setting", "mini"], "invalid choice: 'mini'"),
        ("what_a_prediction_sees", ["--learners", "nobody"], "invalid choice: 'nobody'"),
        ("precision", ["--data", "moon"], "unknown data set 'moon'"),
        ("precision_trained", ["--workdir", "x", "--config", "moon"], "--config: moon is neither a file nor the name"),
        ("scaling", ["--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
        (
            "ahead_of_time",
            ["--target", "h200"],
            "'h200' is not a known device; expected v5e:2x2",
        ),
        (
            "ahead_of_time",
            ["--target", "h100", "--json", "no/such/folder/x.json"],
            "folder no/such/folder does not exist",
        ),
        ("profile", ["--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
        ("on_paper", ["--target", "h100:1", "--forms", "none"], "invalid choice: 'none'"),
        ("on_paper", ["--target", "h100:1", "--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
        ("on_device", ["--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
        ("convolution_parts", ["--out", "no/such/folder/x.json"], "folder no/such/folder does not exist"),
        ("versus_peers", ["--setting", "mini_1shot"], "invalid choice: 'mini_1shot'"),
        ("versus_peers", ["--learn2learn", "no/such/folder"], "no/such/folder has no learn2learn/algorithms/maml.py"),
        ("trees", ["no/such/folder"], "no/such/folder has no benchmarks/ours.py"),
        ("trees", ["--rounds", "0", "."], "--rounds is 0; expected at least 1"),
    ],
)
def test_a_mistake_gets_one_line(name, flags, message):
    done = benchmark(name, *flags)
    assert done.returncode == 2 and message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_cost_of_a_program_counts_loops_and_both_kinds_of_products(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.profile import cost, live

    images, kernel, matrix = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5)), jnp.ones((16, 16))

    def program(images, kernel, matrix):
        dimensions = ("NHWC", "HWIO", "NHWC")
        maps = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        _, unused = jax.jit(lambda m: (m, m @ m))(matrix)
        return maps, jax.lax.scan(lambda m, _: (m @ matrix, None), matrix, length=7)[0]

    limits = {"product_gflops": 1e-3, "copy_gbs": 1e9}
    jaxpr = jax.jit(program).trace(images, kernel, matrix).jaxpr.jaxpr
    gflop, gbytes, seconds = cost(live(jaxpr), limits)
    np.testing.assert_allclose((cost(jaxpr, limits)[0] - gflop) * 1e9, 2 * 16**3)  # the unused product
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


LOOP = """
HloModule jit_program, is_scheduled=true

%fused (param_0: f32[50,8,8,128], param_1: f32[8,8,128], param_2: s32[]) -> f32[50,8,8,128] {
  %param_0 = f32[50,8,8,128]{3,2,1,0} parameter(0)
  %param_1 = f32[8,8,128]{2,1,0} parameter(1)
  %b = f32[1,8,8,128]{3,2,1,0} bitcast(%param_1)
  %param_2 = s32[] parameter(2)
  ROOT %u = f32[50,8,8,128]{3,2,1,0} dynamic-update-slice(%param_0, %b, %param_2, %param_2, %param_2, %param_2)
}
%body (arg: (f32[2,8,8,3], f32[3,3,3,4])) -> (f32[2,8,8,3], f32[3,3,3,4]) {
  %arg = (f32[2,8,8,3]{3,2,1,0}, f32[3,3,3,4]{3,2,1,0}) parameter(0)
  %x = f32[2,8,8,3]{3,2,1,0} get-tuple-element(%arg), index=0
  %k = f32[3,3,3,4]{3,2,1,0} get-tuple-element(%arg), index=1
  %c = f32[2,8,8,4]{3,2,1,0} convolution(%x, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, operand_precision={highest,highest}, backend_config={"estimated_cycles":"700"}
  ROOT %t = (f32[2,8,8,3]{3,2,1,0}, f32[3,3,3,4]{3,2,1,0}) tuple(%x, %k)
}
%less (arg_1: (s32[])) -> pred[] {
  %arg_1 = (s32[]) parameter(0)
  %last = s32[] constant(3)
  %now = s32[] get-tuple-element(%arg_1), index=0
  ROOT %lt = pred[] compare(%now, %last), direction=LT
}
%empty (arg_2: (s32[])) -> (s32[]) {
  %arg_2 = (s32[]) parameter(0)
  %before = s32[] get-tuple-element(%arg_2), index=0
  %added = s32[] add(%before, %before)
  ROOT %t2 = (s32[]) tuple(%added)
}
ENTRY %main (p: f32[50,8,8,128], q: f32[8,8,128], i: s32[], m: f32[16,32]) -> f32[16,16] {
  %p = f32[50,8,8,128]{3,2,1,0} parameter(0)
  %q = f32[8,8,128]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  %m = f32[16,32]{1,0:T(8,128)} parameter(3)
  %near = f32[16,32]{1,0:T(8,128)S(1)} copy(%m)
  %w = (f32[2,8,8,3]{3,2,1,0}, f32[3,3,3,4]{3,2,1,0}) while(%a), condition=%any, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %w2 = (s32[]) while(%a), condition=%less, body=%empty
  %f = f32[50,8,8,128]{3,2,1,0} fusion(%p, %q, %i), kind=kLoop, calls=%fused
  ROOT %d = f32[16,16]{1,0:T(8,128)} dot(%near, %m), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
"""  # noqa: E501


def test_what_a_program_needs_at_least_counts_loops_parts_tiles_and_padding(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.least_time import operations, summary

    found = {op.kind: op for op in operations(LOOP, padding=False)}
    assert {kind: op.times for kind, op in found.items()} == {
        "copy": 1, "convolution": 5, "add": 3, "fusion": 1, "dot": 1,
    }  # fmt: skip
    assert found["fusion"].moved == 2 * 8 * 8 * 128 * 4 + 4  # the part that is changed, and the index
    assert found["copy"].moved == 16 * 128 * 4  # 32 columns in tiles of 128; what lies on the chip counts nothing
    assert found["dot"].moved == 2 * 16 * 128 * 4 and found["dot"].flops == 2 * 16 * 16 * 32
    inside = (3 * 8 - 2) ** 2  # products along both axes that are not with padding
    assert found["convolution"].flops == 2 * 2 * inside * 3 * 4 and found["convolution"].cycles == 700
    (padded,) = (op for op in operations(LOOP, padding=True) if op.kind == "convolution")
    assert padded.flops == 2 * 2 * (3 * 8) ** 2 * 3 * 4 and padded.precision == "highest"
    two_iterations = summary(LOOP, "v5e", 2)
    assert two_iterations["operations"] == round(11 / 2) and two_iterations["compiler_ms"] == round(
        5 * 700 / 1.5e9 / 2 * 1e3, 2
    )


CUDNN = """
ENTRY %main (x: f32[5,8,8,12], g: f32[5,8,8,16]) -> f32[16,3,3,3] {
  %x = f32[5,8,8,12]{3,2,1,0} parameter(0)
  %g = f32[5,8,8,16]{3,2,1,0} parameter(1)
  ROOT %c = (f32[16,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %g), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, feature_group_count=4, operand_precision={highest,highest}, custom_call_target="__cudnn$convBackwardFilter"
}
"""  # noqa: E501


def test_a_kernel_gradient_in_groups_counts_as_much_as_the_convolution(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.least_time import operations

    (gradient,) = operations(CUDNN, padding=True)
    assert gradient.flops == 2 * (5 * 8 * 8) * 9 * 3 * 16 and gradient.kind == "__cudnn$convBackwardFilter"
    assert gradient.moved == 4 * (5 * 8 * 8 * (12 + 16) + 16 * 27)


THUNKS = """\
000: kCopy         [source]
001: kWhile         [prev=000 (1)]
condition:
    002: kCustomKernel [source | sink] loop_compare_fusion
  body:
    000: kCommandBuffer [source]
        003: kCustomKernel [source | sink] fusion_1
        004: kCustomKernel [source | sink] fusion_2
    005: kConvolution [prev=003 (1)]
    006: kWhile         [prev=005 (1)]
      body:
        007: kCustomKernel [source | sink] fusion_3
        000: kCommandBuffer [source]
            008: kCustomKernel [source | sink] fusion_4
"""


def test_the_host_starts_graphs_and_what_is_in_none(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.least_time import host_starts

    # The condition, a graph, a convolution and a loop; in the loop a kernel and a graph.
    assert host_starts(THUNKS, 1) == 4 + 2 and host_starts(THUNKS, 5) == 4 + 5 * 2


@pytest.mark.slow
def test_all_forms_of_many_tasks_are_equal(monkeypatch, double_precision):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import task_forms

    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(3, 2, 6, 6, 3)))
    kernels = [jnp.asarray(0.2 * random.normal(size=(3, 3, 3, *channels))) for channels in ((3, 4), (4, 2))]

    def derivatives(convolution):
        def loss(kernels, x):
            first = jnp.sin(convolution(x, kernels[0]))
            return jnp.sum(jnp.tanh(convolution(first, kernels[1])))

        def adapted(kernels):
            gradients = jax.vmap(jax.grad(loss))(kernels, x)
            stepped = jax.tree.map(lambda kernel, gradient: kernel - gradient, kernels, gradients)
            return jnp.sum(jax.vmap(loss)(stepped, x))

        return jax.jit(jax.value_and_grad(adapted))(kernels)

    want = derivatives(task_forms.plain)
    for name, form in task_forms.FORMS.items():
        if form.convolution:
            got = derivatives(form.convolution)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * float(jnp.max(jnp.abs(b))), err_msg=name)


WITHOUT = """
import sys
for name in ("ml_collections", "tensorflow_datasets", "orbax", "array_record", "matplotlib"):
    sys.modules[name] = None
from benchmarks import on_device
raise SystemExit(on_device.main(sys.argv[1:]))
"""


def test_the_script_for_a_device_needs_the_library_alone_and_keeps_what_it_has(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, "-c", WITHOUT, "--small", "--minutes", "0", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    records = json.loads(out.read_text())["records"]
    assert len(records) > 30 and all(record["error"].startswith("TimeoutError: not begun") for record in records)
    assert done.stdout.count("| TimeoutError: not begun") == len(records) == done.stdout.count("|\n") - 2


@pytest.mark.slow
def test_a_measurement_of_the_script_for_a_device(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import on_device

    monkeypatch.setattr(on_device, "SECONDS", 0.0)
    case = on_device.made_small(on_device.Case(learner="maml", form="grouped", search="no search, cuBLAS"))
    found = on_device.measured(case, small=True, kernels=True)
    assert found["milliseconds"] >= found["fastest"] > 0 and found["temporary_bytes"] > 0
    assert found["kernels"] == []  # a CPU has none
    row = on_device.row({"what": on_device.words_of(case), **found})
    assert (
        row.startswith("| maml, Conv4, 1-shot, 16×16, 4 tasks, tasks: grouped, no search, cuBLAS | ")
        and row.count("|") == 8
    )


def test_the_kernels_of_a_gpu_are_those_of_its_streams(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import kernel_times
    from benchmarks.on_device import kernel_rows

    def named(what, name, pid, tid=0):
        return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}

    def ran(name, milliseconds, pid, tid):
        return {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": 0, "dur": 1e3 * milliseconds}

    events = [
        named("process_name", "/device:GPU:0", 1), named("process_name", "/host:CPU", 2),
        named("thread_name", "Stream #14(Compute)", 1, 14), named("thread_name", "XLA Modules", 1, 2),
        named("thread_name", "Stream #1", 2, 1),
        *[ran("loop_gather_fusion_3", 2, 1, 14)] * 4, *[ran("loop_gather_fusion", 1, 1, 14)] * 2,
        ran("sm80_xmma_gemm_f32f32", 30, 1, 14), ran("gemm_fusion_dot_7", 20, 1, 14),
        ran("jit_program", 70, 1, 2), ran("on the host", 70, 2, 1), {"ph": "X"}, {},
    ]  # fmt: skip
    path = tmp_path / "vm.trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    found = kernel_times.read(path, iterations=2)
    assert [(r["name"], r["milliseconds"], r["times"]) for r in found] == [
        ("sm80_xmma_gemm_f32f32", 15, 0.5), ("gemm_fusion_dot_7", 10, 0.5), ("loop_gather_fusion_3", 4, 2),
        ("loop_gather_fusion", 1, 1),
    ]  # fmt: skip
    assert kernel_times.by_kind(found) == {"products": (25, 1), "loop_gather_fusion": (5, 3)}
    assert kernel_rows({"kernels": found}).startswith("| products, 1 times | 25.00 |") and not kernel_rows({})


def test_all_ways_of_a_part_of_the_convolution_are_equal_and_timed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import convolution_parts

    monkeypatch.setattr(convolution_parts, "CALLS", 1)
    out = tmp_path / "out.json"
    assert convolution_parts.main(["--small", "--only", "query, 8×8×3", "--out", str(out)]) == 0
    records = json.loads(out.read_text())["records"]
    outcomes = {name: jax.vmap(function)(*arrays) for name, function, arrays in convolution_parts.parts(small=True)}
    for way in ("patches", "kernel gradient"):
        ours, *others = (value for name, value in outcomes.items() if name.startswith(way) and "query, 8×8×3" in name)
        assert others
        for value in others:
            np.testing.assert_allclose(value, ours, rtol=0, atol=1e-4)
    assert len(records) == 7 and all(record["microseconds"] > 0 for record in records)


def test_both_styles_of_torch_are_the_same_maml(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.torch_maml import round_of

    sizes = {"shot": 1, "size": 16, "tasks": 2, "features": 4, "steps": 2}
    for what in ("training", "adaptation"):
        loop, vmap = (round_of(style, what, "cpu", **sizes) for style in ("loop", "vmap"))
        np.testing.assert_allclose([loop() for _ in range(3)], [vmap() for _ in range(3)], rtol=1e-4)


def test_imitated_products_are_rounded_in_every_derivative_and_float64_is_not(monkeypatch, double_precision):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.precision import IMITATED, imitated
    from cxgrad_jax.models._convolution import convolution

    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(2, 6, 6, 4)), random.normal(size=(3, 3, 4, 5))

    def results(dtype):
        gradient = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(convolution(x, kernel, "default"))), (0, 1))
        both = jax.jit(lambda x, kernel: (convolution(x, kernel, "default"), *gradient(x, kernel)))
        return both(jnp.asarray(x, dtype), jnp.asarray(kernel, dtype))

    exact, errors = results(jnp.float64), {}
    for name, split in IMITATED.items():
        with imitated(split):
            np.testing.assert_array_equal(results(jnp.float64)[0], exact[0])
            found = results(jnp.float32)
        errors[name] = [float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in zip(found, exact, strict=True)]
    full, tf32, six, three, one = errors.values()
    for i in range(3):
        assert max(full[i], six[i]) < 2e-6 and 2e-6 < three[i] < 1e-4 < tf32[i] < one[i] < 3e-2


@pytest.mark.slow
def test_runs_with_imitated_products_differ_from_float32_and_are_read_again(tmp_path):
    small = {"model.features": 4, "train.iterations": 2, "train.epoch_iterations": 2, "episode.query": 3}
    small |= {"evaluation.episodes": 4, "evaluation.val_episodes": 4}
    fields = [f"--config.{name}={value}" for name, value in small.items()]
    flags = [
        "--config",
        "glyphs_1shot",
        "--products",
        "bfloat16_1",
        "--seeds",
        "2",
        "--workdir",
        str(tmp_path / "runs"),
    ]
    first, again = (benchmark("precision_trained", *flags, "--out", str(tmp_path / "x.json"), *fields) for _ in "12")
    assert first.returncode == again.returncode == 0, first.stderr
    assert set(again.stdout.splitlines()) < set(first.stdout.splitlines()) and "training in" not in again.stderr
    results = json.loads((tmp_path / "x.json").read_text())["results"]
    assert results["float32"]["difference"] == 0 and len(results["bfloat16_1"]["test_accuracy"]) == 2
    digests = {
        kind: json.loads((tmp_path / f"runs/{kind}/seed_0/results.json").read_text())["params_sha256"]
        for kind in results
    }
    assert digests["float32"] != digests["bfloat16_1"]
