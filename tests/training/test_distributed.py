"""Several processes on this machine train the same run as one process with as many devices."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from runs import command, environment, flags, outcome, run, told

pytestmark = pytest.mark.slow

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

# The same for process 1 and SIGTERM, in the second of the three batches of the episodes of a SPLIT, the NUMBER-th time.
STOP_IN_SPLIT = """
import os, signal, jax
from cxgrad_jax import Sampler
batch, drawn = Sampler.batch, []
def stopping(self, indices):
    if self.store.split == "SPLIT":
        drawn.append(indices)
        if len(drawn) == NUMBER and jax.process_index() == 1: os.kill(os.getpid(), signal.SIGNAL)
    return batch(self, indices)
Sampler.batch = stopping
"""

CHANGES = {"parallel__num_devices": 0, "data__storage": "host", "train__iterations": 8}


def run_all(
    data_dir: Path, workdir: Path, before: str = "", number: int = 2, launcher: bool = False, **changes: Any
) -> list[tuple[int, str, str]]:
    """Runs so many processes; returns status, stdout and stderr of each. A launcher tells them of one another by the
    environment instead of flags. Where one is killed, the others are, too, as a scheduler does it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = flags(data_dir, workdir, **{**CHANGES, **changes})

    def start(i):
        told, variables = [f"--coordinator={address}", f"--num_processes={number}", f"--process_id={i}"], {}
        if launcher:
            told = ["--distributed"]
            variables = {
                "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(number), "JAX_PROCESS_ID": str(i),
            }  # fmt: skip
        return subprocess.Popen(
            command(*arguments, *told, before=before),
            env=environment() | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    processes = [start(i) for i in range(number)]
    try:
        if "SIGKILL" in before:
            processes[1].wait(timeout=1200)
            for process in processes:
                process.kill()
        outputs = [process.communicate(timeout=1200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def test_two_processes(tiny_data, tmp_path):
    one = run(*flags(tiny_data, tmp_path / "one", **CHANGES), devices=2)
    assert one.returncode == 0, one.stderr

    stopped = run_all(tiny_data, tmp_path / "two", before=INTERRUPT_AT_5)
    assert [status for status, _, _ in stopped] == [130, 130], stopped
    assert "stopped at iteration 5, saved" in told(stopped[0][2])[-1]
    done = run_all(tiny_data, tmp_path / "two")
    assert [status for status, _, _ in done] == [0, 0], done
    assert outcome(tmp_path / "two") == outcome(tmp_path / "one")


def test_a_stop_in_validation_and_in_the_test_is_agreed_on(tiny_data, tmp_path):
    changes: Any = {"evaluation__val_episodes": 60, "evaluation__episodes": 60}
    one = run(*flags(tiny_data, tmp_path / "one", **CHANGES, **changes), devices=2)
    assert one.returncode == 0, one.stderr
    in_second_validation = STOP_IN_SPLIT.replace("SPLIT", "val").replace("NUMBER", "5").replace("SIGNAL", "SIGTERM")
    stopped = run_all(tiny_data, tmp_path / "two", in_second_validation, launcher=True, **changes)
    assert [status for status, _, _ in stopped] == [130, 130], stopped
    assert all("stopped at iteration 4, saved" in "".join(told(stderr)) for _, _, stderr in stopped)
    in_test = STOP_IN_SPLIT.replace("SPLIT", "test").replace("NUMBER", "2").replace("SIGNAL", "SIGTERM")
    stopped = run_all(tiny_data, tmp_path / "two", in_test, launcher=True, **changes)
    assert [status for status, _, _ in stopped] == [130, 130], stopped
    assert all("stopped in the test" in "".join(told(stderr)) for _, _, stderr in stopped)
    done = run_all(tiny_data, tmp_path / "two", launcher=True, **changes)
    assert [status for status, _, _ in done] == [0, 0], done
    assert outcome(tmp_path / "two") == outcome(tmp_path / "one")


def test_four_processes_one_of_them_killed(tiny_data, tmp_path):
    # Four processes add their gradients in another order than four devices of one process.
    never_killed = run_all(tiny_data, tmp_path / "one", number=4, train__meta_batch=4)
    assert [status for status, _, _ in never_killed] == [0] * 4, never_killed
    kill = STOP_IN_SPLIT.replace("SPLIT", "val").replace("NUMBER", "2").replace("SIGNAL", "SIGKILL")
    killed = run_all(tiny_data, tmp_path / "four", kill, number=4, train__meta_batch=4)
    assert killed[1][0] == -9 and all(status for status, _, _ in killed), killed  # the others die of it, or are killed
    done = run_all(tiny_data, tmp_path / "four", number=4, train__meta_batch=4)
    assert [status for status, _, _ in done] == [0] * 4, done
    assert "resuming after iteration 2" in done[0][1]
    assert outcome(tmp_path / "four") == outcome(tmp_path / "one")
