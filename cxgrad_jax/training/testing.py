"""The test of a run: an ensemble of its best checkpoints on fixed episodes."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm.auto import tqdm

import cxgrad_jax
from cxgrad_jax import evaluation, parallel
from cxgrad_jax.data import ImageStore
from cxgrad_jax.errors import AlreadyTold, UserError
from cxgrad_jax.files import check_writable, write_json
from cxgrad_jax.fitting import TrainState
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.saving import params_sha256
from cxgrad_jax.training import build
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config import ConfigDict, fields, to_json
from cxgrad_jax.training.workdir import check_same_run, read_config

# What an evaluation may change: the meta-parameters do not depend on it, or their shapes tell.
MAY_CHANGE = ("evaluation.", "parallel.", "episode.", "learner.")
MAY_CHANGE_IN_WORDS = f"fields of {', '.join(section[:-1] for section in MAY_CHANGE)}, and where the data lie"
SIZES = ("evaluation.episodes", "evaluation.val_episodes", "evaluation.ensemble")


def test_run(
    config: ConfigDict, learner: MetaLearner, store: ImageStore, mesh: Mesh, checkpoints: Checkpoints, state: TrainState
) -> dict[str, Any]:
    """The paper's test protocol: logits averaged over the checkpoints best in validation, on fixed test episodes.

    Args:
      config: of the run; ``config.evaluation`` says on what data and how.
      learner: of the run.
      store: the test images.
      mesh: to evaluate on.
      checkpoints: of the run.
      state: the newest state; it tells shapes and the iterations done.

    Returns:
      The content of ``results.json``.

    Raises:
      UserError: no checkpoint was validated.
    """
    sampler, num_episodes = build.build_sampler(config, store), config.evaluation.episodes
    evaluator = evaluation.over_episodes(evaluation.query_logits(learner), sampler.batch, num_episodes, mesh)
    chosen = checkpoints.best()[: config.evaluation.ensemble]
    if not chosen:
        raise UserError(f"{checkpoints.directory} has no validated checkpoint; train for at least one epoch first")
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    logits = []
    for iteration in tqdm(chosen, desc="test", unit="checkpoint", disable=jax.process_index() != 0):
        logits.append(evaluator(checkpoints.restore(iteration, like).params))
    labels = sampler.shape.labels()[1]
    ensemble, single = (evaluation.evaluation_of(each, labels) for each in (np.mean(logits, axis=0), logits[0]))
    return {
        "test_accuracy": ensemble.accuracy,
        "test_ci95_tasks": ensemble.ci95,
        "test_ci95_pooled": ensemble.ci95_pooled,
        "num_tasks": num_episodes,
        "ensemble_size": len(chosen),
        "ensemble_iterations": chosen,
        "episode_accuracies": [round(float(value), 6) for value in ensemble.accuracies],
        "single_model_test_accuracy": single.accuracy,
        "test_data": config.evaluation.data or config.data.name,
        "batch_norm": batch_norm(config),
        "query_statistics": config.learner.get("query_statistics", "query"),
        "iterations": int(state.iteration),
        "params_sha256": params_sha256(jax.device_get(state.params)),
        "versions": {"jax": jax.__version__, "flax": flax.__version__, "cxgrad_jax": cxgrad_jax.__version__},
        "config": to_json(config),
    }


def batch_norm(config: ConfigDict) -> str:
    """In words, by what statistics query images are normalised."""
    norm = config.model.get("norm", "batch")
    if norm != "batch":
        return f"none ({norm} norm, statistics of each image alone)"
    if config.learner.get("query_statistics", "query") == "support":
        return "statistics of the support set at the adapted parameters (each query image alone: inductive)"
    return "statistics of the current batch, in training and test (query images jointly: transductive)"


def announce(results: dict[str, Any]) -> None:
    """Prints the line with which the command line ends."""
    told = (*SIZES, "evaluation.data")  # in the line anyway
    changed = {field: value for field, value in results.get("changed", {}).items() if field not in told}
    changes = "".join(f", {field}={value}" for field, value in changed.items())
    print(
        f"test accuracy {100 * results['test_accuracy']:.2f} % ± {100 * results['test_ci95_tasks']:.2f} "
        f"({results['num_tasks']} tasks of {results['test_data']}, ensemble of {results['ensemble_size']}{changes})",
        flush=True,
    )


def open_checkpoints(config: ConfigDict, workdir: Path) -> Checkpoints:
    """The checkpoints of a run, to read.

    Raises:
      UserError: there is none.
    """
    checkpoints = Checkpoints(workdir, config.evaluation.ensemble, read_only=True)
    if not checkpoints.all():
        raise UserError(f"{checkpoints.directory} has no checkpoint; train with --mode=train first")
    return checkpoints


def evaluate_run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Tests a run with the checkpoints at hand and writes the results.

    Args:
      config: the run's own. Other values of ``MAY_CHANGE`` and of where the data lie ask another question.
      workdir: of the run. Receives ``results.json`` where the configuration is the run's own. Otherwise the name of the
        file tells what was changed, such as ``results_shot=5.json``, and so does ``"changed"`` in it.

    Returns:
      The content of the file.

    Raises:
      UserError: no run there or one of another configuration, data that cannot be used, no validated checkpoint, a
        change that other parameters would need, or a file that cannot be written. A folder that cannot be written is
        told on stderr before the work; the result is then printed, and the exception is ``AlreadyTold``.
    """
    workdir = Path(workdir)
    check_same_run(config, workdir, *MAY_CHANGE, "train.iterations", advice=f"a test may change {MAY_CHANGE_IN_WORDS}")
    own = fields(read_config(workdir, named=(config.learner.name, config.model.name)))
    if config.learner.name != own["learner.name"]:
        raise UserError(f"learner.name is {config.learner.name}, but {workdir} was trained with {own['learner.name']}")
    changed = {
        field: value
        for field, value in fields(config).items()
        if value != own[field] and field.startswith(MAY_CHANGE) and not field.startswith("parallel.")
    }
    path = workdir / results_name(config, changed)
    only_printed = jax.process_index() == 0 and _tell_what_cannot_be_written(path)
    store = build.load_stores(config, ("test",), config.evaluation.data or config.data.name)["test"]
    mesh, learner = build.build_mesh(config), build.build_learner(config)
    checkpoints = open_checkpoints(config, workdir)
    like = build.abstract_state(learner, build.build_optimiser(config), np.asarray(store.images[:2]), mesh)
    state = checkpoints.restore(checkpoints.all()[-1], like)
    results = test_run(config, learner, store, mesh, checkpoints, state)
    if changed:
        results["changed"] = changed
    checkpoints.close()
    if jax.process_index() == 0:
        announce(results)
        if only_printed:
            raise AlreadyTold(only_printed)
        write_json(path, results)
    return results


def _tell_what_cannot_be_written(path: Path) -> str:
    """Tells on stderr why the results cannot be written, before the work; the line, or an empty one if they can."""
    try:
        check_writable(path.parent)
    except UserError as error:
        line = f"{path} cannot be written ({error}); the result is printed only"
        print(f"cxgrad_jax: {line}", file=sys.stderr)
        return line
    return ""


def results_name(config: ConfigDict, changed: dict[str, Any]) -> str:
    """``results.json``, or what tells the fields that were changed: ``results_cub.json``, ``results_shot=5.json``.

    The number of episodes and the size of the ensemble are told where nothing else is changed.
    """
    sizes = {field: value for field, value in changed.items() if field in SIZES}
    others = {field: value for field, value in changed.items() if field not in SIZES}
    words = [
        str(value or config.data.name) if field == "evaluation.data" else f"{field.split('.')[-1]}={value}"
        for field, value in (others or sizes).items()
    ]
    return "_".join(["results", *words]) + ".json"


class Run(NamedTuple):
    """A trained run.

    Attributes:
      learner: of the run.
      params: the meta-parameters of the checkpoint that is best in validation.
      config: a ``ConfigDict``.
    """

    learner: MetaLearner
    params: Any
    config: ConfigDict


def load_run(workdir: str | Path, *, named: tuple[str, ...] = ()) -> Run:
    """Opens the run in a folder.

    Args:
      workdir: the folder.
      named: learners and models of your own, such as ``"my_module.my_learner"``, that the run may import.

    Raises:
      UserError: no run is there, no checkpoint was validated, a file is damaged, or the run needs a module that is not
        in ``named``.
    """
    workdir = Path(workdir)
    config = read_config(workdir, named)
    learner, optimiser, mesh = build.build_learner(config), build.build_optimiser(config), parallel.task_mesh(1)
    checkpoints = open_checkpoints(config, workdir)
    if not checkpoints.best():
        raise UserError(f"{checkpoints.directory} has no validated checkpoint; train for at least one epoch first")
    best, size = checkpoints.best()[0], config.data.image_size
    likes = [
        build.abstract_state(learner, optimiser, np.zeros((2, size, size, channels), np.uint8), mesh)
        for channels in (3, 1)
    ]
    like = next((like for like in likes if checkpoints.fits(best, like)), likes[0])
    params = jax.tree.map(jnp.asarray, jax.device_get(checkpoints.restore(best, like).params))
    checkpoints.close()
    return Run(learner, params, config)
