"""How long each kernel of a compiled program runs on the GPU of this machine, as JAX's profiler sees it."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax


def kernel_times(run: Callable[[], Any], iterations: int) -> list[dict[str, Any]]:
    """Runs ``run`` once under the profiler.

    Args:
      run: runs a compiled program, that ran before, and returns its results.
      iterations: of the training in one run.

    Returns:
      A record for each name of a kernel, the longest first: ``name``, and of one iteration ``milliseconds`` and
      ``times``, how often it ran.
    """
    with TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        found = [read(path, iterations) for path in Path(folder).rglob("*.trace.json.gz")]
    return [record for records in found for record in records]


def read(path: Path, iterations: int) -> list[dict[str, Any]]:
    """The records of ``kernel_times`` from a file of the profiler, in the format of Chrome's trace viewer."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    devices = {e["pid"] for e in events if e.get("name") == "process_name" and "/device:GPU" in e["args"]["name"]}
    # A GPU has a line for each stream. Its other lines, such as that of modules, tell the same time again.
    lines = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    microseconds, times = Counter(), Counter()
    for event in events:
        place = event.get("pid"), event.get("tid")
        if event.get("ph") == "X" and place[0] in devices and "Stream" in lines.get(place, ""):
            microseconds[event["name"]] += event["dur"]
            times[event["name"]] += 1
    return [
        {"name": name, "milliseconds": total / iterations / 1e3, "times": times[name] / iterations}
        for name, total in microseconds.most_common()
    ]


def by_kind(records: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Milliseconds and times of products, and of other kernels by their name without its number."""
    milliseconds, times = Counter(), Counter()
    for record in records:
        is_product = re.search(r"gemm|cutlass|dot", record["name"])
        kind = "products" if is_product else record["name"].rstrip("0123456789_.")
        milliseconds[kind] += record["milliseconds"]
        times[kind] += record["times"]
    return {kind: (total, times[kind]) for kind, total in milliseconds.most_common()}
