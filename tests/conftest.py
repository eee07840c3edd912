"""Simulated devices, a cache of compiled programs, a tiny data set and a run on it, for all tests."""

import atexit
import gc
import os
import re
import shutil
import signal
import tempfile
from importlib.metadata import version

# A shell lets the processes in its background ignore SIGINT, and they their children: heed it, for the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" not in os.environ:  # the processes that share the tests have it from the first
    # Most of the time goes into compiling programs that run for a moment, so machine code is not optimised, unless
    # XLA_FLAGS asks for it. The older of two generators of fused loops compiles them in less than half the time.
    # A program is one module of the compiler, since each worker has a core of its own.
    given = os.environ.get("XLA_FLAGS", "")
    quickly = " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    if [int(number) for number in version("jaxlib").split(".")[:2]] < [0, 11]:  # later ones have no such flag
        quickly += " --xla_cpu_use_fusion_emitters=false"
    quickly = "" if "backend_optimization_level" in given else quickly
    os.environ["XLA_FLAGS"] = f"{given}{quickly} --xla_force_host_platform_device_count=4"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp()
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    # The programs start again where nobody chose how memory is handled (a test shows it). That takes a second each.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")  # glibc's own choice

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402
from runs import flags, run  # noqa: E402

from cxgrad_jax import data  # noqa: E402
from cxgrad_jax.data import _layout  # noqa: E402

gc.freeze()  # what is imported stays, and a program being traced is no garbage: look for it less often
gc.set_threshold(100_000, 50, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """``slow_except(ID, …)`` marks the parameters of a test as slow, except for those with these ids."""
    for item in items:
        mark = item.get_closest_marker("slow_except")
        if mark and item.callspec.id not in mark.args:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def double_precision():
    """Float64 for a test. Its programs are not kept for others, since hardly one is shared."""
    kept = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 3600)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", kept)
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_module():
    """Compiled programs are dropped after each module: a process has 65,530 pieces of memory, each takes some."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A data directory with "tiny" and "other" (RGB) and "omniglot" (grey): 16x16, 6 classes of 5 images a split."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split in data.SPLITS:
        for number in range(6):
            folder = root / "images" / split / f"{split}_{number}"
            folder.mkdir(parents=True)
            colours = rng.integers(0, 256, (1, 4, 4, 3))
            for i, pixels in enumerate(np.clip(colours + rng.integers(-40, 40, (5, 4, 4, 3)), 0, 255)):
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    for name in ("tiny", "other"):
        folder = data.prepare("image_folder", source=root / "images", as_name=name, image_size=16, data_dir=root)
    grey = _layout.location("omniglot", 16, root)
    grey.mkdir(parents=True)
    for split in data.SPLITS:
        np.save(_layout.array_path(grey, split), np.load(_layout.array_path(folder, split))[..., :1])
    _layout.write_index(grey, _layout.read_index(folder)["class_sizes"], [])
    return root


@pytest.fixture(scope="session")
def finished(tiny_data, tmp_path_factory):
    """A run that nothing ever stopped."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = run(*flags(tiny_data, workdir))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"test accuracy .* \(6 tasks of tiny, ensemble of 2\)", done.stdout.strip().splitlines()[-1])
    return workdir
