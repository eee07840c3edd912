"""``--dry_run``: the memory that a training would take, by the compiler's own analysis. Nothing is trained."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cxgrad_jax import parallel
from cxgrad_jax.data import ImageStore
from cxgrad_jax.data._layout import location
from cxgrad_jax.data.datasets.catalogue import CATALOGUE
from cxgrad_jax.training import ahead_of_time, build
from cxgrad_jax.training.checks import check_parallel
from cxgrad_jax.training.config import ConfigDict

# A GPU's part that JAX takes by default (XLA_PYTHON_CLIENT_MEM_FRACTION).
GPU_FRACTION = 0.75


def dry_run(config: ConfigDict, target: str = "", absent: Mesh | None = None) -> None:
    """Compiles the training's program and prints its memory on one device, and the largest meta-batch that would fit.

    Where the training itself does not fit, it prints what its tasks take one after the other, too.

    Args:
      config: a checked configuration.
      target: the name of a device that is not here; empty for those that are here.
      absent: ``ahead_of_time.mesh_of(target)``, which had to be made before the first use of a device.

    Raises:
      UserError: as ``check_parallel``, or data that cannot be used.
    """
    check_parallel(config, absent.size if absent else 0)
    mesh = absent or build.build_mesh(config)
    store = _training_images(config)
    device, tasks = mesh.devices.flat[0], config.train.meta_batch // mesh.size
    if target:
        memory = ahead_of_time.memory_of(target) * (1 if device.platform == "tpu" else GPU_FRACTION)
    else:
        memory = parallel.device_memory(mesh)
    storage = build.storage_of(config, store, memory)

    def compiled(tasks_of_a_device, at_once=config.parallel.tasks_per_chunk):
        changed = ConfigDict(config.to_dict())
        changed.train.meta_batch, changed.parallel.tasks_per_chunk = tasks_of_a_device * mesh.size, at_once
        program = ahead_of_time.lower_training(changed, store, mesh, config.train.iterations_per_dispatch or 5, storage)
        return program.compile(compiler_options=ahead_of_time.compiler_options(mesh) or None).memory_analysis()

    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    state = build.abstract_state(learner, optimiser, store.images[:2], mesh)
    state_bytes, params_bytes = (
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) for tree in (state, state.params)
    )
    once, twice = compiled(tasks), compiled(2 * tasks)
    print(f"device        {mesh.size} × {device.device_kind}; all numbers are of one")
    print(f"parameters    {_mb(params_bytes)}, with the optimiser's state {_mb(state_bytes)}")
    print(f"store         {_mb(store.images.nbytes)}, on the {storage}")
    print(f"arguments     {_mb(once.argument_size_in_bytes)}")
    for number, analysis in ((tasks, once), (2 * tasks, twice)):
        print(f"temporaries   {_mb(analysis.temp_size_in_bytes)} with {number} task(s) a device")
    if memory and memory < needed_bytes(once) and config.parallel.tasks_per_chunk != 1:
        temporaries = _mb(compiled(tasks, at_once=1).temp_size_in_bytes)
        print(f"temporaries   {temporaries} with {tasks} task(s) a device, with parallel.tasks_per_chunk=1")
    if memory:
        most = largest(memory, tasks, needed_bytes(once), needed_bytes(twice))
        fitting = f"meta-batch {most * mesh.size} ({most} task(s) a device)" if most > 0 else "none fits"
        print(f"largest       {fitting} in {_mb(memory)}, by the growth between these two")
    else:
        print("largest       not known: the device does not report its memory")
    print("This is the compiler's analysis; nothing ran.", flush=True)


def _training_images(config: ConfigDict) -> ImageStore:
    """The training images. If they are not prepared, zeros in the shape of the published ones, which a line tells."""
    name, size = config.data.name, config.data.image_size
    facts = CATALOGUE.get(name)
    if not facts or not facts.train_images or location(name, size, config.data.dir or None).exists():
        return build.load_stores(config, ("train",))["train"]
    turns = 4 if config.data.rotated_classes else 1
    images, classes = turns * facts.train_images, turns * (facts.classes or (1,))[0]
    print(f"{name} is not prepared here; its {images:,} training images of {size}x{size} are taken for granted")
    pixels = np.broadcast_to(np.uint8(0), (images, size, size, facts.channels))  # it takes no memory
    offsets = np.linspace(0, images, classes + 1).astype(np.int32)
    return ImageStore(pixels, offsets, tuple(map(str, range(classes))), name)


def needed_bytes(analysis: Any) -> int:
    """The memory of a compiled program on one device: arguments, results that take no argument's place, temporaries.

    Args:
      analysis: the ``memory_analysis()`` of the program.
    """
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.argument_size_in_bytes + results + analysis.temp_size_in_bytes


def largest(memory: float, tasks: int, once: int, twice: int) -> int:
    """The most tasks that fit ``memory`` bytes, if ``tasks`` need ``once`` bytes and twice as many ``twice``.

    It follows the straight line through these two. Where not one task fits, it is 0 or less.
    """
    growth = max((twice - once) / tasks, 1)
    return int(tasks + (memory - once) // growth)


def _mb(number: float) -> str:
    return f"{number / 1e6:,.1f} MB"
