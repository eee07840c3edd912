"""From the launch of ``cxgrad_jax.main`` to its first finished iteration at 84x84, without and with compiled programs.

    python -m benchmarks.startup --rounds 3 --out FILE.json

The images are the glyphs that the package draws itself, prepared before the clock starts; the network and the episodes
are those of ``configs/mini_1shot.py``. Cold: an empty compilation cache; warm: the one that the cold start filled. Both
in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.interleaved import machine
from cxgrad_jax import data

FLAGS = (
    "--config=configs/mini_1shot.py", "--config.data.name=glyphs", "--config.train.iterations_per_dispatch=1",
    "--config.train.epoch_iterations=1000",
)  # fmt: skip


def first_iteration(workdir: Path, cache: Path, image_size: int) -> float:
    """Seconds until the first line of ``metrics.jsonl`` is written; the process is then killed."""
    command = [sys.executable, "-m", "cxgrad_jax.main", *FLAGS, f"--config.data.image_size={image_size}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, f"--workdir={workdir}"], env=environment, stdout=log, stderr=log)
        metrics = workdir / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.poll() is not None:
            log.seek(0)
            sys.exit(f"startup: the run ended with status {process.returncode}: {log.read().strip().splitlines()[-1:]}")
        process.kill()
        process.wait()
    return seconds


def main(flags: list[str]) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="startup", description="Time from launch to the first finished iteration.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args(flags)
    data.load("glyphs", "train", image_size=arguments.image_size)
    result = {
        "machine": machine(),
        "command": f"python -m benchmarks.startup {' '.join(flags)}",
        "cold": [],
        "warm": [],
    }
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("cold", "warm"):
                seconds = first_iteration(Path(folder) / kind, Path(folder) / "cache", arguments.image_size)
                result[kind].append(round(seconds, 2))
        print(f"round {number + 1}: cold {result['cold'][-1]:.1f} s, warm {result['warm'][-1]:.1f} s", flush=True)
    for kind in ("cold", "warm"):
        result[f"{kind}_seconds"] = statistics.median(result[kind])
        print(f"{kind} {result[f'{kind}_seconds']:.1f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
