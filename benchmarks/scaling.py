"""How the cost of a training iteration grows with tasks, inner steps and queries, and how often devices talk.

    python -m benchmarks.scaling --out benchmarks/results/scaling.json --picture benchmarks/results/scaling.png

Compiles every point first, then times them in turns. A straight line is fitted to each series by least squares;
``r_squared`` tells how straight it is. The number of all-reduces and all-gathers is read from the compiled program of
two iterations on 2, 4 and 8 simulated devices; one all-reduce in the body of the loop is one an iteration.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cxgrad_jax import runtime

SERIES = {"train.meta_batch": (2, 4, 6, 8), "learner.num_steps": (1, 3, 5, 7, 9), "episode.query": (5, 10, 15, 20, 25)}
NAMES = {"train.meta_batch": "tasks", "learner.num_steps": "inner steps", "episode.query": "queries a class"}
DEVICES = (2, 4, 8)


def measure(setting: str, image_size: int, rounds: int) -> dict[str, Any]:
    """Median seconds of an iteration at every point of every series, the fitted lines, and how straight they are."""
    from benchmarks import ours

    points = {}
    for field, values in SERIES.items():
        for value in values:
            changes = {field.replace(".", "__"): value, "data__image_size": image_size}
            start = time.perf_counter()
            points[field, value] = ours.training(ours.prepare(setting, **changes))
            points[field, value]()
            print(f"{field}={value} ready after {time.perf_counter() - start:.1f} s", flush=True)
    seconds = {point: [] for point in points}
    for _ in range(rounds):
        for point, iteration in points.items():
            start = time.perf_counter()
            iteration()
            seconds[point].append(time.perf_counter() - start)
    result = {}
    for field, values in SERIES.items():
        medians = [statistics.median(seconds[field, value]) for value in values]
        slope, intercept = np.polyfit(values, medians, 1)
        residuals = np.asarray(medians) - np.polyval((slope, intercept), values)
        r_squared = 1 - float(np.sum(residuals**2) / np.sum((np.asarray(medians) - np.mean(medians)) ** 2))
        result[field] = {
            "values": values, "seconds": medians, "slope": float(slope), "intercept": float(intercept),
            "r_squared": r_squared,
        }  # fmt: skip
        print(f"{NAMES[field]:16} {slope:8.3f} s each + {intercept:6.3f} s, r² {r_squared:.4f}")
    return result


def collectives(devices: int) -> dict[str, int]:
    """Collectives in the compiled block of two iterations on simulated devices, in a process of its own."""
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-m", "benchmarks.scaling", "--count_collectives", str(devices)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"scaling: counting collectives on {devices} devices failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def count_collectives(devices: int) -> dict[str, int]:
    """Compiles the small default configuration on the devices of this process and reads its program."""
    from benchmarks import ours
    from cxgrad_jax import fitting, parallel
    from cxgrad_jax.training import build

    config = ours.prepare("glyphs_1shot", train__meta_batch=8, parallel__num_devices=devices)
    store, mesh = ours.random_store(config), parallel.task_mesh(devices)
    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    current = parallel.put(mesh, fitting.init_state(learner, optimiser, 0, store.images[:2]))
    source = build.build_source(config, store, mesh, "device")
    program = build.build_program(config, learner, optimiser, mesh, source, 2)
    program = program.lower(current, next(source.arrays([(0, 2)]))).compile().as_text()
    kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    return {kind: len(re.findall(rf"= \S+ {kind}(?:-start)?\(", program)) for kind in kinds}


def draw_picture(series: dict[str, Any], file: Path) -> None:
    """A panel a series: measured points and the fitted line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(series), figsize=(10, 3), sharey=True, layout="constrained")
    for axis, (field, line) in zip(axes, series.items(), strict=True):
        ends = np.asarray([0, max(line["values"])])
        axis.plot(ends, line["slope"] * ends + line["intercept"], color="#999999", linewidth=1.5)
        axis.plot(line["values"], line["seconds"], "o", color="#0072b2", markersize=6)
        axis.set_xlabel(NAMES[field])
        axis.set_title(f"{line['slope']:.3f} s each, r² {line['r_squared']:.3f}", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("seconds an iteration")
    figure.savefig(file, dpi=150)


def main(flags: list[str]) -> None:
    """Measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(prog="scaling", description="Cost of an iteration against its size.")
    parser.add_argument("--setting", default="mini_1shot", help="a file of configs/ without .py (default mini_1shot)")
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--picture", type=Path, help="PNG file")
    parser.add_argument("--count_collectives", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(flags)
    if arguments.count_collectives:
        print(json.dumps(count_collectives(arguments.count_collectives)))
        return
    for file in (arguments.out, arguments.picture):
        if file and not file.parent.is_dir():
            parser.error(f"folder {file.parent} does not exist")
    from benchmarks.interleaved import machine

    result: dict[str, Any] = {"machine": machine(), "command": f"python -m benchmarks.scaling {' '.join(flags)}"}
    result["collectives"] = {devices: collectives(devices) for devices in DEVICES}
    for devices, counts in result["collectives"].items():
        print(f"{devices} devices, an iteration: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    result["series"] = measure(arguments.setting, arguments.image_size, arguments.rounds)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.picture:
        draw_picture(result["series"], arguments.picture)


if __name__ == "__main__":
    runtime.restart_with_allocator()
    main(sys.argv[1:])
