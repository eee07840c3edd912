"""This project's side of the comparisons: the very functions that ``cxgrad_jax.main`` compiles, on random images."""

import atexit
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cxgrad_jax import evaluation, fitting, parallel, runtime
from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.training import build, checks
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.config_files import load_config

CONFIGS = Path(__file__).parents[1] / "configs"


def prepare(setting: str, **changes: Any) -> ConfigDict:
    """Sets the process up; gives ``configs/SETTING.py`` with ``changes`` (fields with ``__`` for the dot)."""
    runtime.keep_compiled_programs()
    config = load_config(str(CONFIGS / f"{setting}.py"))
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    checks.check(config)
    return config


def random_store(config: ConfigDict, classes: int = 16) -> ImageStore:
    """Random images, twice as many a class as an episode needs: uint8 ``[images, size, size, 3]``."""
    per_class, size = 2 * (config.episode.shot + config.episode.query), config.data.image_size
    images = np.random.default_rng(0).integers(0, 256, (classes * per_class, size, size, 3), dtype=np.uint8)
    offsets = np.arange(0, classes * per_class + 1, per_class, dtype=np.int32)
    return ImageStore(images, offsets, tuple(map(str, range(classes))))


def training(config: ConfigDict) -> Callable[[], Any]:
    """One training iteration: episodes drawn and gathered, inner loops, outer gradient, Adam; waits for its metrics."""
    store, mesh = random_store(config), build.build_mesh(config)
    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    current = parallel.put(mesh, fitting.init_state(learner, optimiser, 0, store.images[:2]))
    source = build.build_source(config, store, mesh)
    arrays = source.arrays((first, 1) for first in itertools.count())
    program = build.build_program(config, learner, optimiser, mesh, source, 1)
    atexit.register(arrays.close)  # ends the thread that draws, before Python takes away what it needs

    def iteration():
        nonlocal current
        current, metrics = program(current, next(arrays))
        return jax.device_get(metrics)

    return iteration


def adaptation(config: ConfigDict, episodes: int) -> Callable[[], Any]:
    """Adaptation to ``episodes`` test episodes and the logits of their queries, as in validation and test."""
    store, mesh, learner = random_store(config), build.build_mesh(config), build.build_learner(config)
    params = parallel.put(mesh, learner.init(jax.random.key(0), store.images[:2]))
    draw = build.build_sampler(config, store).batch
    evaluator = evaluation.over_episodes(evaluation.query_logits(learner), draw, episodes, mesh)
    return lambda: evaluator(params)
