"""Damaged and hostile inputs at every door that reads a file or a flag.

    python -m benchmarks.fuzz --inputs 2100 --processes 40 --seed 0 --out FILE.json

Every input ends in success or in one line (a ``UserError``; a program's exit status 0 or 2). Anything else is a fault:
another exception, a message of several lines, another exit status, a traceback of a process, a hang. It is printed with
its number, by which ``--door NAME --only NUMBER`` repeats it. The exit status is 1 where there is one.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import doors
from benchmarks.doors import Call, Place
from benchmarks.interleaved import machine
from benchmarks.mutations import changed_json_file
from cxgrad_jax import UserError
from cxgrad_jax.training import checkpoints

SECONDS = 10.0  # of the processor; more is a hang, and so is a wait of six times as long: other work may be in the way
START = 50.0  # seconds of the processor more for a process: imports and compilation
DAMAGED = ("config.json", "results.json", "checkpoints/1/metrics/metrics", "checkpoints/2/metrics/metrics")
LONGEST_LINE = 2000

# By name: the door, and its share of the inputs.
DOORS: Mapping[str, tuple[Callable[[np.random.Generator, Place], Call], float]] = {
    "images": (doors.images, 0.24),
    "archives": (doors.archives, 0.16),
    "data_prep": (doors.archives_prepared, 0.05),
    "prepared data": (doors.prepared_data, 0.06),
    "config.json": (doors.config_json, 0.10),
    "metrics.jsonl": (doors.metrics_jsonl, 0.06),
    "results.json": (doors.results_json, 0.05),
    "checkpoints": (doors.checkpoints, 0.06),
    "safetensors": (doors.safetensors, 0.07),
    "official weights": (doors.official_weights, 0.05),
    "configuration files": (doors.configuration_files, 0.04),
    "command line": (doors.command_lines, 0.06),
}


class Hang(BaseException):
    """An input took longer than ``SECONDS``."""


class Fault(NamedTuple):
    """What should not have come out.

    Attributes:
      door: of the input.
      number: of the input at this door.
      what: came out.
    """

    door: str
    number: int
    what: str


def knock(name: str, number: int, seed: int, place: Place) -> str:
    """Gives one input to a door; returns "success" or "refusal", or what came out instead."""
    door = DOORS[name][0]
    call = door(np.random.default_rng((seed, list(DOORS).index(name), number)), place)
    errors = io.StringIO()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            status = call()
        outcome = _of_status(status, errors.getvalue()) if isinstance(status, int) else "success"
    except UserError as error:
        outcome = _of_line(str(error))
    except Hang:
        outcome = f"a hang: {''.join(traceback.format_exc()).strip()[-600:]}"
    except SystemExit as end:  # a program's --help
        outcome = "success" if not end.code else f"exit {end.code}"
    except Exception:
        outcome = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return outcome


def _of_status(status: int, errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.startswith(("cxgrad", "error: "))]
    if status == 0:
        return "success"
    return _of_line(lines[-1]) if status == 2 and lines else f"status {status}, {errors[-600:]!r}"


def _of_line(line: str) -> str:
    one = line.strip() and len(line.splitlines()) == 1 and len(line) <= LONGEST_LINE and "Traceback" not in line
    return "refusal" if one else f"not one line: {line!r}"


def put_back(place: Place) -> None:
    """Makes what a call was given sound again."""
    shutil.rmtree(place.folder)
    place.folder.mkdir()
    for path in place.copy.rglob("*"):
        if path.is_file() and not (place.run / path.relative_to(place.copy)).exists():
            path.unlink()
    for path in place.run.rglob("*"):
        there = place.copy / path.relative_to(place.run)
        if path.is_file() and (not there.exists() or there.read_bytes() != path.read_bytes()):
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)


def fuzz(place: Place, inputs: int, seed: int, only: Mapping[str, list[int]] | None = None) -> Iterator[Any]:
    """Gives inputs to all doors in this process; yields, door by door, its name, the ``Counter`` of its outcomes, its
    ``Fault``s and the seconds.

    Args:
      place: what is damaged.
      inputs: over all doors, by their shares, and at least one each.
      seed: other inputs.
      only: the numbers of the inputs by door, instead of all.
    """
    numbers = only or {name: range(max(1, round(inputs * share))) for name, (_, share) in DOORS.items()}
    with quiet(), patience():
        for name, chosen in numbers.items():
            counts, faults, start = Counter(), [], time.perf_counter()
            for number in chosen:
                outcome = knock(name, number, seed, place)
                put_back(place)
                kind = outcome if outcome in ("success", "refusal") else "fault"
                counts[kind] += 1
                if kind == "fault":
                    faults.append(Fault(name, number, outcome))
            yield name, counts, faults, time.perf_counter() - start


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Ends a call that hangs, and waits less for what Orbax's threads say after a failure."""

    def handle(*_):
        raise Hang

    previous = {number: signal.signal(number, handle) for number in (signal.SIGALRM, signal.SIGPROF)}
    checkpoints.OTHER_THREADS, waited = 0.02, checkpoints.OTHER_THREADS
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        checkpoints.OTHER_THREADS = waited


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps warnings and the log off this program's own output."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def processes(place: Place, count: int, seed: int) -> tuple[Counter, list[Fault]]:
    """Runs ``count`` command lines in processes of their own, two at once: with other flags, or, every third, the test
    of a run one of whose files is damaged.
    """
    root = place.folder.parent / "processes"

    def outcome_of(number: int) -> tuple[str, list[str]]:
        rng, folder = np.random.default_rng((seed, len(DOORS), number)), root / str(number)
        mine = doors.place_of(folder, place.data, place.run)
        if number % 3 == 0:
            path = mine.copy / DAMAGED[rng.integers(0, len(DAMAGED))]
            path.write_bytes(changed_json_file(rng, path.read_bytes()))
            words = ["cxgrad_jax.main", f"--workdir={mine.copy}", "--mode=evaluate"]
        else:
            program, arguments = doors.command_line(rng, mine, folder)
            module = "data_prep" if program is doors.prepare else program.__module__
            words = [module, *(argument for argument in arguments if argument != "--download")]
        return _process(words, folder), words

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(outcome_of, range(count)))
    counts = Counter(outcome if outcome in ("success", "refusal") else "fault" for outcome, _ in outcomes)
    faults = [
        Fault("processes", number, f"{words}: {outcome}")
        for number, (outcome, words) in enumerate(outcomes)
        if outcome not in ("success", "refusal")
    ]
    return counts, faults


def _process(words: list[str], folder: Path) -> str:
    """What comes out of ``python -m`` and these words."""
    root = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "CXGRAD_DATA_DIR": str(folder / "folder" / "file"),
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    limited = ["sh", "-c", 'ulimit -t "$0" && exec "$@"', str(int(START + SECONDS)), sys.executable, "-m", *words]
    try:
        done = subprocess.run(limited, cwd=folder, env=environment, capture_output=True, timeout=10 * (START + SECONDS))
    except subprocess.TimeoutExpired:
        return "a hang"
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "a hang: it used up its time of the processor"
    errors = done.stderr.decode(errors="replace").replace("\r", "\n")
    if "Traceback" in errors:
        return f"a traceback: {errors[-600:]}"
    return _of_status(done.returncode, errors)


def main(flags: list[str]) -> int:
    """Fuzzes, prints the table and the faults, and writes."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Damaged and hostile inputs at every door.")
    parser.add_argument("--inputs", type=int, default=2100, help="in this process")
    parser.add_argument("--processes", type=int, default=40, help="command lines in processes of their own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", choices=list(DOORS), help="this one alone")
    parser.add_argument("--only", type=int, nargs="+", help="with --door: these inputs alone")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args(flags)
    out = arguments.out and arguments.out.absolute()
    start, rows, faults, only = time.perf_counter(), {}, [], None
    if arguments.door:
        share = DOORS[arguments.door][1]
        only = {arguments.door: arguments.only or list(range(max(1, round(arguments.inputs * share))))}
    with tempfile.TemporaryDirectory() as root:
        here = Path(root, "here", "here")  # where a flag that became a path of its own may write
        here.mkdir(parents=True)
        os.chdir(here)
        (here / "file").write_text("")
        os.environ["CXGRAD_DATA_DIR"] = str(here / "file")  # not even the glyphs can be prepared there
        with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            place = doors.make_place(Path(root))
        prepared = time.perf_counter() - start
        with ThreadPoolExecutor(1) as pool:
            alive = pool.submit(processes, place, 0 if only else arguments.processes, arguments.seed)
            print(f"{'door':<22}{'inputs':>8}{'success':>9}{'refusal':>9}{'fault':>7}{'s':>7}", flush=True)
            for name, counts, found, seconds in fuzz(place, arguments.inputs, arguments.seed, only):
                faults += found
                rows[name] = counts
                _row(name, counts, seconds)
            counts, found = alive.result()
        faults += found
        rows["processes"] = counts
        _row("processes", counts)
    _row("all", sum(rows.values(), Counter()))
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s, of which {prepared:.0f} s for the run that is damaged; seed {arguments.seed}")
    for fault in faults:
        print(f"\n{fault.door}, input {fault.number}: {fault.what}")
    if out:
        content = {
            "machine": machine(), "command": f"python -m benchmarks.fuzz {' '.join(flags)}", "seed": arguments.seed,
            "seconds": round(seconds), "doors": rows, "faults": [fault._asdict() for fault in faults],
        }  # fmt: skip
        out.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if faults else 0


def _row(name: str, counts: Counter, seconds: float | None = None) -> None:
    numbers = (sum(counts.values()), counts["success"], counts["refusal"], counts["fault"])
    took = "" if seconds is None else f"{seconds:>7.0f}"
    print("{:<22}{:>8}{:>9}{:>9}{:>7}".format(name, *numbers) + took, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
