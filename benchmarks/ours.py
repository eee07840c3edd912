"""This project's side of the comparisons: the very functions that ``cxgrad_jax.main`` compiles, on random images."""

import atexit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cxgrad_jax import evaluate, parallel, runtime, state, train
from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.episodes import HostDrawer
from cxgrad_jax.main import load_config
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.config import ConfigDict

CONFIGS = Path(__file__).parents[1] / "configs"


def prepare(setting: str, **changes: Any) -> ConfigDict:
    """Sets the process up; gives ``configs/SETTING.py`` with ``changes`` (fields with ``__`` for the dot)."""
    runtime.use_cores_as_devices()
    runtime.keep_compiled_programs()
    config = load_config(str(CONFIGS / f"{setting}.py"))
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    configuration.check(config)
    return config


def random_store(config: ConfigDict, classes: int = 16) -> ImageStore:
    """Random images, twice as many a class as an episode needs: uint8 ``[images, size, size, 3]``."""
    per_class, size = 2 * (config.episode.shot + config.episode.query), config.data.image_size
    images = np.random.default_rng(0).integers(0, 256, (classes * per_class, size, size, 3), dtype=np.uint8)
    offsets = np.arange(0, classes * per_class + 1, per_class, dtype=np.int32)
    return ImageStore(images, offsets, tuple(map(str, range(classes))))


def training(config: ConfigDict) -> Callable[[], Any]:
    """One training iteration: episodes drawn and gathered, inner loops, outer gradient, Adam; waits for its metrics."""
    store, tasks = random_store(config), config.train.meta_batch
    mesh = parallel.task_mesh(configuration.num_devices(config))
    learner, optimiser = configuration.build_learner(config), configuration.build_optimiser(config)
    current = parallel.put(mesh, state.init_state(learner, optimiser, 0, store.images[:2]))
    draw, spec, sources = train.training_source(config, store, mesh, 0, 1)
    atexit.register(sources.close)  # ends the thread that draws, before Python takes away what it needs
    chunk = config.parallel.tasks_per_chunk or parallel.default_chunk(tasks // mesh.size)
    block = train.make_train_block(learner.loss, optimiser, draw, mesh, spec, 1, chunk, config.train.task_reduction)

    def iteration():
        nonlocal current
        current, metrics = block(current, next(sources))
        return jax.device_get(metrics)

    return iteration


def adaptation(config: ConfigDict, episodes: int) -> Callable[[], Any]:
    """Adaptation to ``episodes`` test episodes and the logits of their queries, as in validation and test."""
    store, shape = random_store(config), configuration.episode_shape(config)
    mesh = parallel.task_mesh(configuration.num_devices(config))
    learner = configuration.build_learner(config)
    params = parallel.put(mesh, learner.init(jax.random.key(0), store.images[:2]))
    drawer = HostDrawer(store, shape, 0, "test")
    evaluator = evaluate.over_episodes(evaluate.query_logits(learner), drawer, episodes, mesh)
    return lambda: evaluator(params)
