"""Opens a trained run, to read it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cxgrad_jax import parallel
from cxgrad_jax.arguments import as_path
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.training import build
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.workdir import read_config


def open_checkpoints(config: ConfigDict, workdir: Path) -> Checkpoints:
    """Opens the checkpoints of a run, to read them.

    Raises:
      UserError: there is none.
    """
    checkpoints = Checkpoints(workdir, config.evaluation.ensemble, read_only=True)
    if not checkpoints.all():
        raise UserError(f"{checkpoints.directory} has no checkpoint; train with --mode=train first")
    return checkpoints


class Run(NamedTuple):
    """A trained run, opened by ``load_run``.

    Attributes:
      learner: the learner of the run.
      params: the meta-parameters of the checkpoint that is best in validation.
      config: the configuration of the run, a ``ConfigDict``.
    """

    learner: MetaLearner
    params: Any
    config: ConfigDict


def load_run(workdir: str | Path, *, named: str | tuple[str, ...] = ()) -> Run:
    """Opens the run in a folder.

    Args:
      workdir: the folder.
      named: a learner or model of your own, such as ``"my_module.my_learner"``, that the run may import, or several.

    Raises:
      UserError: ``workdir`` is not a path, there is no run, no checkpoint was validated, a file is damaged, or the run
        needs a module that is not in ``named``.
    """
    workdir = as_path("workdir", workdir)
    naming = "read it by cx.load_run(…, named=({name!r},))"
    config = read_config(workdir, (named,) if isinstance(named, str) else named, naming)
    learner, optimiser, mesh = build.build_learner(config), build.build_optimiser(config), parallel.task_mesh(1)
    checkpoints = open_checkpoints(config, workdir)
    best, size = checkpoints.best()[0], config.data.image_size
    likes = [
        build.abstract_state(learner, optimiser, np.zeros((2, size, size, channels), np.uint8), mesh)
        for channels in (3, 1)
    ]
    like = next((like for like in likes if checkpoints.fits(best, like)), likes[0])
    params = jax.tree.map(jnp.asarray, jax.device_get(checkpoints.restore(best, like).params))
    checkpoints.close()
    return Run(learner, params, config)
