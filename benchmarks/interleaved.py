"""Several programs in turns: each a process of its own, warm before the first turn, so that all see the same machine.

A benchmark gives its sides as functions ``arguments -> (one round, versions)`` and calls ``run``. Each side runs in a
process started as ``python -m BENCHMARK FLAGS --side NAME``. For every line that it reads it runs an untimed round,
since the system may have taken its idle memory away meanwhile, and then a timed one: the steady state of a long run.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxgrad_jax import runtime
from cxgrad_jax.machine import cores, processor

Side = Callable[[argparse.Namespace], tuple[Callable[[], Any], dict[str, str]]]


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GB, and how busy the machine is with other work (load)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = round(os.getloadavg()[0], 2)
    return {"processor": processor(), "cores": cores(), "memory_gb": round(memory, 1), "load_before": load}


class _Worker:
    def __init__(self, module: str, name: str, flags: list[str], environment: dict[str, str]):
        command = [sys.executable, "-m", module, *flags, "--side", name]
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )
        self.name, self.seconds, self.peak_mb = name, [], 0.0
        answer = self._read()
        self.versions, self.ready_seconds = answer["versions"], answer["ready_seconds"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            words = self._log.read().strip().splitlines() or ["it said nothing"]
            sys.exit(f"{self.name} ended with status {self._process.wait()}: {words[-1]}")
        return json.loads(line)

    def round(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._read()
        self.seconds.append(answer["seconds"])
        self.peak_mb = answer["peak_mb"]

    def close(self) -> None:
        self._process.communicate()


def _work(side: Side, arguments: argparse.Namespace) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    start = time.perf_counter()
    one_round, versions = side(arguments)
    one_round()
    answer(ready_seconds=time.perf_counter() - start, versions=versions)
    for _ in sys.stdin:
        one_round()  # untimed: while the other side ran, the system may have taken idle memory away
        start = time.perf_counter()
        one_round()
        seconds = time.perf_counter() - start
        answer(seconds=seconds, peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def run(
    module: str, parser: argparse.ArgumentParser, sides: dict[str, Side], flags: list[str]
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Runs the sides in turns and prints every round.

    Args:
      module: the benchmark's name for ``python -m``.
      parser: of the benchmark's own flags; ``--rounds``, ``--out`` and ``--plain_allocator`` are added.
      sides: by name; "ours" runs with the allocator that ``cxgrad_jax.main`` chooses, unless ``--plain_allocator``.
      flags: of the command line.

    Returns:
      The flags, and machine, command, versions, and of every side the median, minimum and all of its rounds in seconds
      and its peak memory in MB.
    """
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--plain_allocator", action="store_true", help="ours without runtime.allocator()")
    parser.add_argument("--side", choices=list(sides), help=argparse.SUPPRESS)
    arguments = parser.parse_args(flags)
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; expected at least 1")
    if arguments.out and not arguments.out.parent.is_dir():
        parser.error(f"--out: folder {arguments.out.parent} does not exist")
    if arguments.side:
        with contextlib.suppress(BrokenPipeError):
            _work(sides[arguments.side], arguments)
        sys.exit(0)
    before = machine()
    workers = []
    for name in sides:
        chosen = runtime.allocator(os.environ) if name == "ours" and not arguments.plain_allocator else {}
        workers.append(_Worker(module, name, flags, {**os.environ, **chosen}))
        print(f"{name} is ready after {workers[-1].ready_seconds:.1f} s", flush=True)
    for number in range(arguments.rounds):
        for worker in workers:
            worker.round()
        print(f"round {number + 1}: " + ", ".join(f"{w.name} {w.seconds[-1]:.3f} s" for w in workers), flush=True)
    result: dict[str, Any] = {"machine": before, "command": f"python -m {module} {' '.join(flags)}", "versions": {}}
    for worker in workers:
        worker.close()
        result |= {
            f"{worker.name}_seconds": statistics.median(worker.seconds),
            f"{worker.name}_seconds_min": min(worker.seconds),
            f"{worker.name}_rounds": [round(seconds, 4) for seconds in worker.seconds],
            f"{worker.name}_peak_mb": round(worker.peak_mb, 1),
        }
        result["versions"] |= worker.versions
    return arguments, result


def report(arguments: argparse.Namespace, result: dict[str, Any], keys: list[str]) -> None:
    """Prints the values of ``keys`` and writes the whole result to ``--out``."""
    for key in keys:
        print(f"{key:24} {result[key]:.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
