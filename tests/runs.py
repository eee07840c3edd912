"""Tiny runs on a tiny data set, and the command line as a user runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

TINY = {
    "data.name": "tiny", "data.image_size": 16, "model.features": 4, "learner.num_steps": 2, "learner.context_dim": 4,
    "learner.first_order": True,
    "episode.way": 3, "episode.query": 2, "train.iterations": 16, "train.epoch_iterations": 2, "train.meta_batch": 2,
    "train.iterations_per_dispatch": 1, "train.keep_every": 16, "evaluation.episodes": 6, "evaluation.val_episodes": 6,
    "evaluation.ensemble": 2, "parallel.num_devices": 1,
}  # fmt: skip


def flags(data_dir: Path, workdir: Path, **changes: Any) -> list[str]:
    """Flags of a tiny run; ``changes`` are fields with ``__`` for the dot."""
    fields = {**TINY, "data.dir": data_dir, **{name.replace("__", "."): value for name, value in changes.items()}}
    return [f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in fields.items())]


def environment(devices: int = 1, users: bool = False) -> dict[str, str]:
    """The environment of a process of its own, with so many simulated devices. ``users``: with their machine code."""
    given = "" if users else os.environ.get("XLA_FLAGS", "")
    others = re.sub(r"--xla_force_host_platform_device_count=\d+", "", given)
    return {**os.environ, "XLA_FLAGS": f"{others} --xla_force_host_platform_device_count={devices}"}


def command(*arguments: str, before: str = "") -> list[str]:
    """The command line ``python -m cxgrad_jax.main``; ``before`` is Python code to run first."""
    if not before:
        return [sys.executable, "-m", "cxgrad_jax.main", *arguments]
    start = "import runpy; runpy.run_module('cxgrad_jax.main', run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"{before}\n{start}", *arguments]


def run(*arguments: str, devices: int = 1, before: str = "", users: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    return subprocess.run(
        command(*arguments, before=before),
        env=environment(devices, users), capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


def results(workdir: Path) -> dict[str, Any]:
    """The content of ``results.json``."""
    return json.loads((workdir / "results.json").read_text())


def outcome(workdir: Path) -> tuple[str, str, dict[str, Any]]:
    """All that must be equal where two runs are: digest of the final parameters, metrics, and results."""
    final = results(workdir)
    final.pop("by_query_statistics", None)  # of an evaluation; a training asks one question
    return final["params_sha256"], (workdir / "metrics.jsonl").read_text(), final


def told(stderr: str) -> list[str]:
    """The lines on stderr, without the progress bars'."""
    return [line for line in re.split(r"[\r\n]", stderr) if line.strip() and not re.search(r"\d%\|", line)]
