"""How the process and its compiled programs are set up: memory, devices, other processes, compiler options, cache.

This is the only place for settings that change the speed but not the numbers. ``benchmarks/README.md`` has what each of
them gains. ``python -m cxgrad_jax.main`` applies all of them. A notebook or a program of your own may give
``compiler_options`` to its ``jax.jit``. The allocator must be chosen before Python starts, by the environment variables
that ``allocator`` returns.

A CPU is one device, even if it has many cores. Several devices of a CPU get the compiler's default convolutions, which
are slower. With the faster ones XLA (jax 0.10.2 and 0.12.0) computes wrongly in a program that two devices of a process
run together for more than about a second (``tests/test_parallel.py``).
"""

import functools
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.machine import cores
from cxgrad_jax.platforms import current_platform, traced_for

# By default glibc gives freed buffers back to the system, and clearing new pages costs more than the arithmetic in
# them. These settings keep freed buffers, in huge pages where the system has them.
ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"

SECONDS_FOR_HOST = 30.0

PATIENCE = "xla_cpu_collective_call_terminate_timeout_seconds"


def allocator(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables with which glibc's allocator keeps freed memory.

    Args:
      environment: the environment of the process, such as ``os.environ``.

    Returns:
      The variables that are missing. There are none with another C library, or if ``environment`` already says how
      memory is handled.
    """
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in environment)
    return {} if chosen or platform.libc_ver()[0] != "glibc" else {"GLIBC_TUNABLES": ALLOCATOR}


def restart_with_allocator() -> None:
    """Starts this command again in the same process with ``allocator()`` in its environment, if that adds anything."""
    missing = allocator(os.environ)
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})


def let_devices_be_late() -> None:
    """Lets the devices of a CPU, which ``XLA_FLAGS`` may simulate, wait a day for one another. Call it before JAX.

    XLA ends a process whose devices wait for more than 40 seconds. On an overloaded machine such a wait is not
    a defect. Before version 0.10 JAX cannot be told so.
    """
    if jax.__version_info__ >= (0, 10) and PATIENCE not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{PATIENCE}=86400".strip()


def join_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of several that share a training. Call it before the first use of a device.

    An argument that is None is read from ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` or ``JAX_PROCESS_ID``,
    which a launcher such as Kubeflow Trainer sets. If all three are known, nothing else is asked. If none is known, JAX
    detects the cluster: Cloud TPU, SLURM, Open MPI or Kubernetes.

    Args:
      coordinator: ``"HOST:PORT"`` of process 0, the same in all processes.
      num_processes: the number of processes.
      process_id: the number of this process, from 0.

    Raises:
      UserError: some of the three are known and some are not, a value is invalid, the host of the coordinator is not
        found, or no cluster is detected.
    """
    known = {
        "--coordinator": coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS") or None,
        "--num_processes": _whole_number("JAX_NUM_PROCESSES") if num_processes is None else num_processes,
        "--process_id": _whole_number("JAX_PROCESS_ID") if process_id is None else process_id,
    }
    missing = [flag for flag, value in known.items() if value is None]
    if 0 < len(missing) < 3:
        raise UserError(
            f"{' and '.join(flag for flag in known if flag not in missing)} given without {' and '.join(missing)}; "
            "give all three (or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID), or none on a cluster "
            "that JAX detects"
        )
    if missing:
        try:
            jax.distributed.initialize()
        except ValueError as error:  # JAX's word for "no cluster was detected"
            raise UserError(
                f"JAX detects no cluster here ({reason(error)}); give --coordinator=HOST:PORT, "
                "--num_processes and --process_id"
            ) from None
    else:
        address, number, own = known.values()
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise UserError(f"--coordinator is {address!r}; expected HOST:PORT, such as node1:1234, port 1 to 65535")
        if number < 1:
            raise UserError(f"--num_processes is {number}; expected at least 1")
        if not 0 <= own < number:
            raise UserError(f"--process_id is {own}, and --num_processes is {number}; expected 0 to {number - 1}")
        _look_for_coordinator(host.strip("[]"), int(port), own)
        jax.distributed.initialize(address, number, own, cluster_detection_method="deactivate")
    if threading.current_thread() is threading.main_thread():  # JAX has replaced Python's handler of SIGTERM
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _look_for_coordinator(host: str, port: int, process_id: int) -> None:
    """Refuses a host that is not found, and says on stderr where process 0 does not listen yet.

    JAX would wait for both in silence, and then end the process with a core dump that Python cannot catch. A cluster
    may need a moment until it knows the name of a host that was just started.

    Raises:
      UserError: the host is not found within ``SECONDS_FOR_HOST``.
    """
    end = time.monotonic() + SECONDS_FOR_HOST
    while True:
        try:
            socket.getaddrinfo(host, port)
            break
        except (OSError, UnicodeError) as error:  # UnicodeError: no host has such a name
            if time.monotonic() >= end:
                raise UserError(f"--coordinator names the host {host!r}, which is not found: {reason(error)}") from None
        time.sleep(1)
    if process_id != 0:
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError:
            print(
                f"cxgrad_jax: process {process_id} waits up to 5 minutes for process 0 at {host}, port {port}, where "
                "nothing listens yet",
                file=sys.stderr,
                flush=True,
            )


def _whole_number(variable: str) -> int | None:
    """Reads an environment variable as a whole number. None means that it is not set."""
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise UserError(f"{variable} is {text!r}; expected a whole number")
    return int(text) if text else None


def keep_compiled_programs() -> None:
    """Keeps compiled programs for the next start, in JAX's own persistent cache.

    The folder is the one that JAX is configured with, else ``$CXGRAD_COMPILATION_CACHE``, else
    ``~/.cache/cxgrad_jax/compiled``. If that folder cannot be written, or the user has no home, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        return
    chosen = os.environ.get("CXGRAD_COMPILATION_CACHE")
    try:
        folder = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "cxgrad_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        logging.log(
            logging.WARNING if chosen else logging.INFO,
            "compiled programs are not kept for the next start (%s); $CXGRAD_COMPILATION_CACHE names a folder", error,
        )  # fmt: skip
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def compiler_options(num_devices: int, platform: str | None = None) -> dict[str, Any]:
    """Options for ``jax.jit(..., compiler_options=)`` of a program for a platform. An accelerator has none.

    On one device of a CPU, convolutions go to the older library (Eigen), which is two to four times faster here than
    the default (YNN). A compiler that does not know that option has Eigen alone. Several devices get the default,
    since Eigen's are wrong there. An operation uses several threads only if there are more cores than devices. Loops
    use vectors of 512 bits where the processor has them, and not 256 as by default.

    Args:
      num_devices: the number of devices that the program runs on.
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``. None means ``platforms.current_platform()``.
    """
    if (platform or current_platform()) != "cpu":
        return {}
    options: dict[str, Any] = {
        "xla_cpu_multi_thread_eigen": num_devices < cores(), "xla_cpu_prefer_vector_width": 512
    }  # fmt: skip
    if num_devices == 1:
        without_convolutions = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
        options["xla_cpu_experimental_ynn_fusion_type"] = without_convolutions
    return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """Whether this version of the compiler takes the option."""
    try:
        with traced_for("cpu"):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
