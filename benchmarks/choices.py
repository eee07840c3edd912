"""What each choice that the defaults make buys: the default training iteration against one choice undone at a time.

    python -m benchmarks.choices --setting mini_1shot --rounds 5 --out FILE.json

All variants are compiled in one process, which has the allocator of ``cxgrad_jax.main``, and run in turns. What the
allocator itself buys is seen by ``benchmarks.versus_official`` with and without ``--plain_allocator``.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import ours
from benchmarks.interleaved import machine
from cxgrad_jax import runtime
from cxgrad_jax.learners import _inner_loop
from cxgrad_jax.models import _convolution, _fused

ALL = 1_000_000_000_000


def variants(tasks: int) -> dict[str, tuple[dict[str, Any], list[Any]]]:
    """By name: changes of the configuration, and what is put in the place of module attributes."""
    plain: Any = {"compiler_options": lambda num_devices, platform=None: {}}
    whole: Any = {"POSITIONS_AT_ONCE": ALL, "IMAGE_POSITIONS_AT_ONCE": ALL}
    return {
        "default": ({}, []),
        "tasks vectorised": ({"parallel__tasks_per_chunk": tasks}, []),
        "inner steps as a loop": ({}, [mock.patch.object(_inner_loop, "UNROLLED", 1)]),
        "inner steps recomputed": ({"learner__remat": True}, []),
        "kernel gradient of all images at once": ({}, [mock.patch.multiple(_convolution, **whole)]),
        "first block of all images at once": ({}, [mock.patch.object(_fused, "PART_BYTES", ALL)]),
        "first layer like the others": ({}, [mock.patch.object(_convolution, "FEW_CHANNELS", 0)]),
        "the compiler's default options": ({}, [mock.patch.multiple(runtime, **plain)]),
    }


def main(flags: list[str]) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="choices", description="The default iteration with one choice undone.")
    parser.add_argument("--setting", default="mini_1shot", help="a file of configs/ without .py (default mini_1shot)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args(flags)
    before, programs = machine(), {}
    tasks = ours.prepare(arguments.setting).train.meta_batch
    for name, (changes, patches) in variants(tasks).items():
        for patch in patches:
            patch.start()
        start = time.perf_counter()
        programs[name] = ours.training(ours.prepare(arguments.setting, **changes))
        programs[name]()
        print(f"{name}: ready after {time.perf_counter() - start:.1f} s", flush=True)
        for patch in patches:
            patch.stop()
    seconds = {name: [] for name in programs}
    for _ in range(arguments.rounds):
        for name, iteration in programs.items():
            start = time.perf_counter()
            iteration()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, value in median.items():
        print(f"{name:42} {value:7.3f} s  {value / median['default']:5.2f} times the default")
    result = {"machine": before, "command": f"python -m benchmarks.choices {' '.join(flags)}", "seconds": median}
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    runtime.restart_with_allocator()
    main(sys.argv[1:])
