"""Settings of the process, made once before JAX starts its backend: the allocator and the compilation cache.

What they buy is in ``benchmarks/README.md``. Neither changes a number that is computed.
"""

import ctypes
import os
import platform
from pathlib import Path

import jax

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**31 - 1


def prepare() -> None:
    """What ``python -m cxgrad_jax.main`` does first."""
    keep_freed_memory()
    use_compilation_cache()


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep freed buffers; says whether it did.

    XLA's CPU buffers are freed after every call. Given back to the system, their pages must be cleared and mapped
    again at the next call. With both thresholds raised, buffers below 2 GB stay in the process, and its peak is about
    what it was. Nothing is done where ``MALLOC_*`` or ``GLIBC_TUNABLES`` say how memory is to be handled, or where
    the C library is another one.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST) and mallopt(_M_TRIM_THRESHOLD, _LARGEST))


def use_compilation_cache() -> str:
    """Keeps compiled programs for the next start, in JAX's own persistent cache; returns the folder.

    The folder is JAX's (``$JAX_COMPILATION_CACHE_DIR``) if that is set, else ``$CXGRAD_COMPILATION_CACHE``, else
    ``~/.cache/cxgrad_jax/xla``. The key holds the program, the compiler's version and flags and the device, so an
    entry is the very program that would be compiled. JAX only warns where the folder cannot be written.
    """
    if not jax.config.jax_compilation_cache_dir:
        folder = os.environ.get("CXGRAD_COMPILATION_CACHE") or Path.home() / ".cache" / "cxgrad_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    return jax.config.jax_compilation_cache_dir
