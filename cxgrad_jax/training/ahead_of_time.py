"""The training's program for devices that are not here: compiled from abstract arguments, and never run.

A TPU needs the wheel ``libtpu``, a GPU ``jax-cuda12-plugin`` and ``jax-cuda12-pjrt``, each of the version that fits
JAX's, and neither a driver nor another package.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cxgrad_jax import parallel
from cxgrad_jax.data import ImageStore
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import build
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.sources import resident_shapes

CARDS = Path(__file__).with_name("devices")  # what the compiler asks of a GPU, by name
TPU_BYTES = {"v5e": 16 << 30, "v6e": 32 << 30}  # of memory of one chip
# Without these, libtpu asks a server of the cloud what it runs on, and a second process on the machine cannot load it.
NO_CLOUD = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}  # fmt: skip


def mesh_of(target: str) -> Mesh:
    """The mesh of a machine that is not here. Call it before the first use of a device.

    Args:
      target: ``"v5e:2x2"`` or ``"v6e:2x2"`` (``1x1`` is one chip), or ``"h100:N"`` with N cards, ``"h100"`` with 4.

    Raises:
      UserError: another target, or the wheels of its compiler are not installed.
    """
    jax.config.update("jax_platforms", "cpu")  # this process computes nothing on an accelerator that may be here
    kind, _, size = target.partition(":")
    if kind in TPU_BYTES and re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        if not find_spec("libtpu"):
            raise UserError(f"{target} needs the wheel libtpu, of the version that fits jax: pip install 'jax[tpu]'")
        os.environ.update(NO_CLOUD)
        bounds = [*(min(2, int(n)) for n in size.split("x")), 1]  # a host has four chips at most
        found = topologies.get_topology_desc(topology_name=target, platform="tpu", chips_per_host_bounds=bounds)
    elif (CARDS / f"{kind}.txtpb").is_file() and re.fullmatch(r"[1-9]\d*", size or "4"):
        if not find_spec("jax_plugins") or not find_spec("jax_plugins.xla_cuda12"):
            raise UserError(
                f"{target} needs two wheels: pip install --no-deps jax-cuda12-plugin=={jax.__version__} "
                f"jax-cuda12-pjrt=={jax.__version__}"
            )
        text = re.sub(r"^#.*\n", "", _card(kind), flags=re.M)
        found = topologies.get_topology_desc(platform="cuda", target_config=text, topology=f"1x1x{size or 4}")
    else:
        raise UserError(f"{target!r} is not a known device; expected v5e:2x2, v6e:2x2, h100 or h100:N")
    return Mesh(np.asarray(found.devices), (parallel.TASK_AXIS,), axis_types=(AxisType.Auto,))


def memory_of(target: str) -> int:
    """Bytes of memory of one device of a target that ``mesh_of`` knows."""
    kind = target.partition(":")[0]
    if kind in TPU_BYTES:
        return TPU_BYTES[kind]
    (size,) = re.findall(r"device_memory_size: (\d+)", _card(kind))
    return int(size)


def compiler_options(mesh: Mesh) -> dict[str, Any]:
    """For ``Lowered.compile``: the lowest effort for a TPU, where the default takes more than ten minutes."""
    if mesh.devices.flat[0].platform != "tpu":
        return {}
    if hasattr(jax.config, "jax_exec_time_optimization_effort"):  # jax 0.10 has it, 0.12 does not
        return {"exec_time_optimization_effort": -1.0}
    return {"optimization_level": "O0"}


def lower_training(config: ConfigDict, store: ImageStore, mesh: Mesh, iterations: int, storage: str = "device") -> Any:
    """The function that a training runs, ``iterations`` in one call, lowered for the mesh.

    Args:
      config: the configuration of the training.
      store: the training images, whose values do not matter.
      mesh: the devices, which may not be here.
      iterations: the number of iterations in a dispatch.
      storage: where the images lie, ``"device"`` or ``"host"``.
    """
    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    source = build.build_source(config, store, mesh, storage)
    arrays = resident_shapes(store, mesh) if storage == "device" else _episodes(config, store, mesh, iterations)
    images = np.zeros((2, *store.images.shape[1:]), store.images.dtype)
    state = build.abstract_state(learner, optimiser, images, mesh)
    return build.build_program(config, learner, optimiser, mesh, source, iterations).lower(state, arrays)


def _episodes(config: ConfigDict, store: ImageStore, mesh: Mesh, iterations: int) -> Episode:
    """The arrays of ``sources.host_source``."""
    tasks, place = (iterations, config.train.meta_batch), NamedSharding(mesh, P(None, parallel.TASK_AXIS))
    labels = build.episode_shape(config).labels()

    def shape(sizes, dtype):
        return jax.ShapeDtypeStruct((*tasks, *sizes), dtype, sharding=place)

    images = [shape((len(each), *store.images.shape[1:]), store.images.dtype) for each in labels]
    return Episode(images[0], shape(labels[0].shape, np.int32), images[1], shape(labels[1].shape, np.int32))


def _card(kind: str) -> str:
    return (CARDS / f"{kind}.txtpb").read_text(encoding="utf-8")
