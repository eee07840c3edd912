"""Facts about the machine that a process runs on: cores, kind of processor, memory taken."""

import os
import platform
import sys
from pathlib import Path


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The kind of CPU, such as ``AMD EPYC, family 25, model 17``. Compiled programs and roundings differ by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()  # of the first core
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:  # no x86
        return platform.processor() or platform.machine()
    numbers = [f"{name} {facts[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    return ", ".join([facts["model name"], *numbers])


def peak_memory() -> int | None:
    """The most memory in bytes that this process has taken so far. None means that the system does not report it."""
    try:
        import resource  # Windows has none
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
