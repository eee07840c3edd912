"""Times training iterations on the device of this machine, in at most ten minutes: ``benchmarks/on_device.sh``.

    benchmarks/on_device.sh --out on_device.json            all, the most important first, until the time is over
    benchmarks/on_device.sh --out on_device.json --only 32×32        those whose name it finds
    benchmarks/on_device.sh --out on_device.json --kernels  also the time of each kernel of a GPU
    benchmarks/on_device.sh --out on_device.json --small    16 pixels, 8 filters: whether it runs, no measurement

It has the library's layer alone, with random images: neither a configuration nor a data set nor a network. What it
times is ``fitting.train_program`` with the episodes drawn on the device, which ``cxgrad_jax.main`` runs. PyTorch, where
it is, runs first, in processes of its own: the official code of CxGrad if ``--official`` names a clone, and MAML. The
file is written after each measurement. Milliseconds are of one outer iteration: the median of the dispatches after the
first. "Same bits" says whether a dispatch from the same state gives the same bits again; its ``digest`` in the file
says whether another process gave them too.
"""

import argparse
import functools
import hashlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cxgrad_jax as cx
from benchmarks import kernel_times, least_time, official, task_forms
from cxgrad_jax import fitting, parallel
from cxgrad_jax.training.sources import device_source

CLASSES, IMAGES = 64, 40
# How a GPU's compiler chooses the forms of products: by default it compiles many of its own and times them on the card.
SEARCH: dict[str, dict[str, Any]] = {
    "search among all": {},
    "search in cuBLAS": {"xla_gpu_enable_triton_gemm": False},
    "no search, cuBLAS": {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0},
}
SECONDS = 2.0  # of dispatches that a measurement takes at most, after the first three
SHOWN = 6  # kinds of kernels that a row is followed by


class Case(NamedTuple):
    """A training iteration to time.

    Attributes:
      learner: its name, ``"cxgrad"`` or ``"maml"``.
      model: ``"Conv4"`` or ``"ResNet12"``.
      shot: support images a class; with 5 an iteration has 2 tasks, as in the paper, else 4.
      size: pixels a side.
      form: a key of ``task_forms.FORMS``.
      precision: of the model's products.
      iterations: of a dispatch.
      remat: whether inner steps are computed anew.
      search: a key of ``SEARCH``.
    """

    learner: str = "cxgrad"
    model: str = "Conv4"
    shot: int = 1
    size: int = 84
    form: str = "library"
    precision: str = "highest"
    iterations: int = 50
    remat: bool = False
    search: str = "search among all"

    @property
    def tasks(self) -> int:
        return 2 if self.shot == 5 else 4


def cases() -> Iterator[Case]:
    """What to time, the most important first."""
    yield from (Case(shot=shot, size=size) for size in (84, 32) for shot in (1, 5))
    yield from (Case(size=size, search=search) for search in SEARCH if SEARCH[search] for size in (84, 32))
    quick = Case(search="no search, cuBLAS")
    long = {"model": "ResNet12", "iterations": 5}  # an iteration takes ten times as long as with Conv4
    yield from (quick._replace(precision="default"), quick._replace(learner="maml"), quick._replace(**long))
    yield from (Case(precision="default"), Case(**long))
    yield from (Case(form=form) for form in task_forms.FORMS if form != "library")
    yield from (Case(size=32, form="grouped, steps in a loop"), Case(**long, form="grouped"))
    yield from (Case("maml", shot=shot, size=size) for size in (84, 32) for shot in (1, 5))
    yield from (Case(iterations=n) for n in (1, 10, 200))
    yield from (Case(shot=5, precision="default"), Case(**long, precision="default"))
    yield from (Case(precision="high"), Case(remat=True))
    yield from (Case(form=form, precision="default") for form in task_forms.FORMS if form != "library")


def made_small(case: Case) -> Case:
    """The case at a size that shows whether it runs."""
    return case._replace(size=32 if case.model == "ResNet12" else 16, iterations=min(case.iterations, 2))


def measured(case: Case, small: bool, kernels: bool = False) -> dict[str, Any]:
    """Compiles and times a case: milliseconds an iteration, seconds of compiling, bytes, what it needs at least.

    With ``kernels`` also what ``kernel_times`` finds.
    """
    sizes = {"features": 8} if small and case.model == "Conv4" else {}
    if small and case.model == "ResNet12":
        sizes = {"channels": (4, 8, 8, 8)}
    model = getattr(cx.models, case.model)(num_classes=5, precision=case.precision, **sizes)
    learner = getattr(cx.learners, case.learner)(model, num_steps=1 if small else 5, remat=case.remat)
    mesh, form, optimiser = parallel.task_mesh(1), task_forms.FORMS[case.form], optax.adam(1e-3)
    source = device_source(cx.sampler(random_store(case.size), 5, case.shot, 15), case.tasks, mesh)
    images = np.zeros((2, case.size, case.size, 3), np.uint8)
    state = parallel.put(mesh, fitting.init_state(learner, optimiser, 0, images))
    (arrays,) = source.arrays([(0, case.iterations)])
    program = fitting.train_program(
        learner.loss, optimiser, source.draw, mesh, source.spec, case.iterations, form.at_once
    )
    start = time.perf_counter()
    with task_forms.applied(form):
        lowered = program.lower(state, arrays)
    compiled = lowered.compile(compiler_options=SEARCH[case.search])
    record: dict[str, Any] = {"compile_seconds": time.perf_counter() - start}
    if memory := compiled.memory_analysis():
        record["temporary_bytes"] = memory.temp_size_in_bytes
    record |= on_paper(compiled.as_text(), case.iterations)
    twice = [jax.device_get(compiled(jax.tree.map(jnp.copy, state), arrays)) for _ in range(2)]
    record["same_bits"] = all(map(np.array_equal, *map(jax.tree.leaves, twice)))
    record["digest"] = hashlib.sha256(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(twice[0]))).hexdigest()[:16]
    milliseconds, begin = [], time.perf_counter()
    while len(milliseconds) < 4 or (time.perf_counter() - begin < SECONDS and len(milliseconds) < 100):
        start = time.perf_counter()
        state, metrics = compiled(state, arrays)
        losses = jax.device_get(metrics["loss"])
        milliseconds.append((time.perf_counter() - start) * 1e3 / case.iterations)
    if not np.isfinite(losses).all():
        raise FloatingPointError("the loss is not finite")
    if kernels:
        record["kernels"] = kernel_times.kernel_times(lambda: compiled(state, arrays), case.iterations)
    return record | {"milliseconds": statistics.median(milliseconds[1:]), "fastest": min(milliseconds[1:])}


def on_paper(text: str, iterations: int) -> dict[str, float]:
    """``least_time.summary`` of a program for the device that is here, if its limits are known."""
    kind = jax.devices()[0].device_kind.lower()
    known = {"h100": "h100", "h200": "h200", "v5 lite": "v5e", "v6 lite": "v6e"}
    device = next((device for words, device in known.items() if words in kind), None)
    return least_time.summary(text, device, iterations) if device else {}


def random_store(size: int) -> cx.data.ImageStore:
    """Random images ``[classes * images, size, size, 3]``."""
    images = np.random.default_rng(0).integers(0, 256, (CLASSES * IMAGES, size, size, 3), dtype=np.uint8)
    return cx.data.from_arrays(images, np.repeat(np.arange(CLASSES), IMAGES))


def with_torch(small: bool, size: int, precision: str, style: str) -> dict[str, Any]:
    """MAML in PyTorch on the same device (``benchmarks.torch_maml``)."""
    device = "cuda" if jax_platform() == "gpu" else "cpu"
    command = [sys.executable, "-m", "benchmarks.torch_maml", "--device", device, "--precision", precision]
    command += ["--style", style, "--image_size", str(16 if small else size)]
    command += ["--features", "8", "--steps", "1", "--rounds", "1"] if small else []
    return from_process(command)


def with_official(folder: Path, setting: str) -> dict[str, Any]:
    """CxGrad by the official code on the same device (``benchmarks.official``)."""
    device = "cuda" if jax_platform() == "gpu" else "cpu"
    command = [sys.executable, "-m", "benchmarks.official", "--official", str(folder)]
    return from_process([*command, "--setting", setting, "--device", device])


def from_process(command: list[str]) -> dict[str, Any]:
    """What another process measures, and prints as JSON in its last line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "milliseconds": found["seconds"] * 1e3,
        "compile_seconds": found["first_seconds"],
        "peak_bytes": found["peak_bytes"],
    }


@functools.cache
def jax_platform() -> str:
    """The platform of the devices here, found out by another process, so that this one holds none of them yet."""
    command = "import jax; print(jax.default_backend())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def row(record: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in record:
        return f"| {record['what']} | {record['error']} | | | | | |"

    def cell(name, form, factor=1.0):
        return form.format(record[name] * factor) if name in record else ""

    share = f"{record['least_ms'] / record['milliseconds']:.0%}" if record.get("least_ms") else ""
    memory = cell("temporary_bytes", "{:,.0f} MB", 1e-6) or cell("peak_bytes", "{:,.0f} MB", 1e-6)
    same = ("yes" if record["same_bits"] else "no") if "same_bits" in record else ""
    first, others = cell("milliseconds", "{:.2f}"), (cell("gbytes", "{:.1f}"), share, same)
    return f"| {' | '.join((record['what'], first, cell('compile_seconds', '{:.0f} s'), memory, *others))} |"


def kernel_rows(record: dict[str, Any]) -> str:
    """A line for each of the kinds of kernels that take longest, if they were measured."""
    kinds = list(kernel_times.by_kind(record.get("kernels", [])).items())[:SHOWN]
    return "".join(f"| {kind}, {times:.0f} times | {total:.2f} | | | | | |\n" for kind, (total, times) in kinds)


def words_of(case: Case) -> str:
    """A case in words: what differs from the defaults."""
    words = [case.learner, case.model, f"{case.shot}-shot", f"{case.size}×{case.size}", f"{case.tasks} tasks"]
    words += [case.precision] if case.precision != "highest" else []
    words += [f"tasks: {case.form}"] if case.form != "library" else []
    words += [case.search] if SEARCH[case.search] else []
    words += [f"{case.iterations} a dispatch"] if case.iterations not in (2, 5, 50) else []
    return ", ".join(words + ["remat"] * case.remat)


def main(flags: list[str]) -> int:
    """Measures, prints a table and writes; the exit status."""
    parser = argparse.ArgumentParser(prog="on_device", description="Training iterations on the device of this machine.")
    parser.add_argument("--out", type=Path, default=Path("on_device.json"), help="JSON, written as it goes")
    parser.add_argument("--minutes", type=float, default=9.0, help="no measurement begins later")
    parser.add_argument("--official", type=Path, help="a clone of github.com/shlee625/CxGrad")
    parser.add_argument("--only", default="", metavar="REGEX", help="measurements whose name it finds")
    parser.add_argument("--kernels", action="store_true", help="also the milliseconds of each kernel of a GPU")
    parser.add_argument("--small", action="store_true", help="16 pixels, 8 filters, 1 inner step: whether it runs")
    given = parser.parse_args(flags)
    if not given.out.parent.is_dir():
        parser.error(f"--out: folder {given.out.parent} does not exist")
    if given.official and not official.is_clone(given.official):
        parser.error(f"--official: {given.official} is not a clone of shlee625/CxGrad")
    begin, records, described = time.monotonic(), [], {}

    def measure(what: str, function: Callable[[], dict[str, Any]], **fields: Any) -> None:
        seconds = time.monotonic() - begin
        if not re.search(given.only, what):
            return
        try:
            if seconds > given.minutes * 60:
                raise TimeoutError(f"not begun: {given.minutes:g} minutes were over")
            record = function()
        except Exception as error:  # one that fails, for want of memory or of a package, must not end the others
            record = {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"}
        records.append({"what": what, **fields, **record})
        print(row(records[-1]), flush=True)
        print(kernel_rows(record), end="", flush=True)
        given.out.write_text(json.dumps({**described, "records": records}, indent=2) + "\n")

    print(
        "| what | ms an iteration | compiling | memory | GB moved | least time on paper | same bits |",
        "|---" * 7 + "|",
        sep="\n",
    )
    for shot in (1, 5) if given.official else ():
        name = f"official code, CxGrad, Conv4, {shot}-shot, 84×84"
        measure(name, lambda shot=shot: with_official(given.official, f"mini_{shot}shot"))
    for style, precision in (("loop", "default"), ("loop", "highest"), ("vmap", "default")):
        name = f"PyTorch, MAML, 1-shot, 84×84, 4 tasks, {style}, {precision}"
        measure(name, lambda style=style, precision=precision: with_torch(given.small, 84, precision, style))
    device = jax.devices()[0]
    described = {"device": device.device_kind, "jax": jax.__version__, "small": given.small}
    for case in cases():
        case = made_small(case) if given.small else case
        measure(words_of(case), lambda case=case: measured(case, given.small, given.kernels), **case._asdict())
        jax.clear_caches()
    size = "a small size, which is not a measurement" if given.small else "an outer iteration each"
    print(f"\n{device.device_kind}, jax {jax.__version__}, {size}; {(time.monotonic() - begin) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
