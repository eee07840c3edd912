"""Opens the runs that ``--mode=analyse`` measures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cxgrad_jax import parallel
from cxgrad_jax.analysis._features import inner_states
from cxgrad_jax.data import ImageStore
from cxgrad_jax.errors import UserError
from cxgrad_jax.fitting import init_state
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.report.alike import check_alike
from cxgrad_jax.training import build
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.runs import open_checkpoints
from cxgrad_jax.training.starting import started, trained_params
from cxgrad_jax.training.workdir import read_config

# Runs must share these fields to be measured on the same episodes, which the first run's configuration draws.
SAME_EPISODES = ("data.name", "data.image_size", "episode.way", "episode.shot", "episode.query")


class MeasuredRun(NamedTuple):
    """A run, finished or not.

    Attributes:
      name: the one of ``names_of``.
      workdir: its folder.
      config: its configuration, with the test of the analysis.
      learner: its learner.
      iterations: the iterations whose meta-parameters are at hand, in order. The first is 0, before training, unless
        the run started from trained parameters that are gone.
      best: the iteration of the checkpoint that is best in validation.
      restore: ``iteration -> meta-parameters``.
      remark: a sentence if it cannot be analysed, because its learner adapts no parameters; empty if it can.
    """

    name: str
    workdir: Path
    config: ConfigDict
    learner: MetaLearner
    iterations: list[int]
    best: int
    restore: Callable[[int], Any]
    remark: str


def names_of(workdirs: Sequence[Path]) -> list[str]:
    """The runs' names in a report: the names of their folders, with as many folders above as it takes to differ.

    Raises:
      UserError: a folder is given twice.
    """
    parts, places = ([of(x).parts for x in workdirs] for of in (Path.absolute, Path.resolve))
    for i, workdir in enumerate(workdirs):
        if places[i] in places[:i]:
            raise UserError(f"{workdir} is given twice; give each run once")
    for depth in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*each[-depth:])) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def open_run(workdir: Path, name: str, like: ConfigDict, store: ImageStore) -> MeasuredRun:
    """Opens the run in ``workdir``.

    Args:
      workdir: the folder of the run.
      name: its name in the report.
      like: the configuration with the ``data.dir`` and the ``evaluation`` to use. A learner and a model of the user's
        own that it names may be imported.
      store: the test images.

    Raises:
      UserError: there is no run, or no validated checkpoint.
    """
    naming = "give its --workdir first, and name it: --config.{section}.name={name}"
    config = read_config(workdir, (like.learner.name, like.model.name), naming)
    config.data.dir, config.evaluation = like.data.dir, ConfigDict(like.evaluation.to_dict())
    checkpoints = open_checkpoints(config, workdir)
    best = checkpoints.best()[0]
    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    images = np.asarray(store.images[:2])
    shapes = build.abstract_state(learner, optimiser, images, parallel.task_mesh(1))

    at_hand = checkpoints.all()
    first = None if 0 in at_hand else _first_params(learner, optimiser, config, images)

    def restore(iteration):
        return jax.device_get(checkpoints.restore(iteration, shapes).params) if iteration in at_hand else first

    def adapt(params, images):
        return learner.adapt(params, images, jnp.arange(len(images)))

    remark, one_a_class = "", jnp.zeros((config.episode.way, *images.shape[1:]), images.dtype)
    try:
        inner_states(jax.eval_shape(adapt, shapes.params, one_a_class))
    except UserError as error:
        remark = f"{name} is not shown: {error}."
    iterations = [*([] if first is None else [0]), *at_hand]
    return MeasuredRun(name, workdir, config, learner, iterations, best, restore, remark)


def _first_params(
    learner: MetaLearner, optimiser: optax.GradientTransformation, config: ConfigDict, images: np.ndarray
) -> Any:
    """The meta-parameters before training. None means that the run started from trained ones that are gone."""
    params = init_state(learner, optimiser, config.seed, images).params
    if not config.train.start_from:
        return params
    try:
        return started(params, trained_params(config), config, images)
    except UserError:
        return None


def check_measurable(runs: Sequence[MeasuredRun]) -> None:
    """Refuses runs that cannot stand in one report.

    Raises:
      UserError: two have different episodes, or none adapts anything. The line names the runs and the field.
    """
    configs = {str(run.workdir): run.config for run in runs}
    check_alike(configs, SAME_EPISODES, "expected runs on the same episodes")
    if all(run.remark for run in runs):
        raise UserError(f"nothing to analyse: {runs[0].remark.removesuffix('.')}")
