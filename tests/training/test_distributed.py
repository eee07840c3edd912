"""Two processes on this machine train the same run as one process with two devices."""

import socket
import subprocess
from pathlib import Path

from runs import command, environment, flags, outcome, run, told

# Code that runs before the command line: process 0, which alone writes metrics, interrupts itself.
INTERRUPT_AT_5 = """
import os, signal
from cxgrad_jax.training import metrics_file as metrics
write = metrics.MetricsFile.write
def interrupting(self, **record):
    write(self, **record)
    if record["iteration"] == 5: os.kill(os.getpid(), signal.SIGINT)
metrics.MetricsFile.write = interrupting
"""

CHANGES = {"parallel__num_devices": 0, "data__storage": "host", "train__iterations": 8}


def run_both(data_dir: Path, workdir: Path, before: str = "") -> list[tuple[int, str, str]]:
    """Runs both processes; returns status, stdout and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = flags(data_dir, workdir, **CHANGES)
    arguments += [f"--coordinator={address}", "--num_processes=2"]
    processes = [
        subprocess.Popen(
            command(*arguments, f"--process_id={i}", before=before),
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=1200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def test_two_processes(tiny_data, tmp_path):
    one = run(*flags(tiny_data, tmp_path / "one", **CHANGES), devices=2)
    assert one.returncode == 0, one.stderr

    stopped = run_both(tiny_data, tmp_path / "two", before=INTERRUPT_AT_5)
    assert [status for status, _, _ in stopped] == [130, 130], stopped
    assert "stopped at iteration 5, saved" in told(stopped[0][2])[-1]
    done = run_both(tiny_data, tmp_path / "two")
    assert [status for status, _, _ in done] == [0, 0], done
    assert outcome(tmp_path / "two") == outcome(tmp_path / "one")
