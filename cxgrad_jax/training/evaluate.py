"""``--mode=evaluate``: a run is tested again, as it was or with other data, shots or statistics."""

import hashlib
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cxgrad_jax.data import ImageStore
from cxgrad_jax.errors import AlreadyTold, UserError
from cxgrad_jax.files import check_writable, write_json
from cxgrad_jax.fitting import TrainState
from cxgrad_jax.learners import MetaLearner, by_path
from cxgrad_jax.training import build
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config import ConfigDict, fields, value_at
from cxgrad_jax.training.images_of_run import DATA_FILE, check_same_images
from cxgrad_jax.training.runs import open_checkpoints
from cxgrad_jax.training.testing import announce, percent, test_run
from cxgrad_jax.training.transductive import has_batch_norm
from cxgrad_jax.training.workdir import check_same_run, read_config

# A test may change these: the meta-parameters do not depend on them, or the shapes of the meta-parameters do.
MAY_CHANGE = ("evaluation.", "parallel.", "episode.", "learner.", "model.precision", "model.dtype")
# And not these, which no test uses. A further question asks one checkpoint alone.
WITHOUT_EFFECT = ("evaluation.val_episodes", "learner.first_order", "learner.remat")
WITHOUT_EFFECT_ON_QUESTIONS = (*WITHOUT_EFFECT, "evaluation.ensemble")
MAY_CHANGE_IN_WORDS = (
    "evaluation (whose seed draws the episodes), parallel, episode, learner, model.precision, model.dtype, data.dir"
)

LONGEST_NAME = 200  # bytes of a file's name, without its ending; file systems take 255


class Opened(NamedTuple):
    """A trained run, opened to be tested.

    Attributes:
      path: the file that receives the results.
      only_printed: the reason why that file cannot be written, or an empty string.
      config: the configuration of the run, with the changes of this test.
      changed: these changes, by field.
      learner: the learner of ``config``.
      store: the test images.
      mesh: the mesh to evaluate on.
      checkpoints: the checkpoints of the run.
      state: the newest state, which gives shapes and the iterations done.
    """

    path: Path
    only_printed: str
    config: ConfigDict
    changed: dict[str, Any]
    learner: MetaLearner
    store: ImageStore
    mesh: Mesh
    checkpoints: Checkpoints
    state: TrainState


def open_for_test(config: ConfigDict, workdir: str | Path, question: str = "") -> Opened:
    """Opens a run to be tested.

    Args:
      config: the run's own configuration, or one with other values of ``MAY_CHANGE`` or another ``data.dir``.
      workdir: the folder of the run. If results cannot be written there, stderr says so before the work.
      question: the name of a further question, for the name of the file.

    Raises:
      UserError: there is no run or one of another configuration, a change has no effect or needs other parameters, the
        data cannot be used or are not those that the run used, there is no checkpoint, or the run keeps fewer best
        checkpoints than the ensemble has.
    """
    workdir = Path(workdir)
    check_same_run(config, workdir, *MAY_CHANGE, "train.iterations", advice=f"a test may change {MAY_CHANGE_IN_WORDS}")
    trained = read_config(workdir, named=(config.learner.name, config.model.name))
    config = ConfigDict(config.to_dict())
    config.train.iterations = trained.train.iterations  # the configuration of an extended run may have fewer
    own = fields(trained)
    if config.learner.name != own["learner.name"]:
        raise UserError(f"learner.name is {config.learner.name}, but {workdir} was trained with {own['learner.name']}")
    for field in WITHOUT_EFFECT_ON_QUESTIONS if question else WITHOUT_EFFECT:
        if field in own and (given := value_at(config, field)) != own[field]:
            what = f"--question={question}" if question else "a test"
            raise UserError(f"{field} is {given}, not {own[field]} as in {workdir}; it has no effect on {what}")
    changed = {
        field: value
        for field, value in fields(config).items()
        if value != own[field] and field.startswith(MAY_CHANGE) and not field.startswith("parallel.")
    }
    if not question and config.evaluation.ensemble > trained.evaluation.ensemble:
        raise UserError(
            f"evaluation.ensemble is {config.evaluation.ensemble}, but {workdir} keeps the "
            f"{trained.evaluation.ensemble} best checkpoints; expected at most {trained.evaluation.ensemble}"
        )
    path = workdir / results_name(config, changed, question)
    store = build.load_stores(config, ("test",), config.evaluation.data or config.data.name)["test"]
    only_printed = _tell_what_cannot_be_written(path) if jax.process_index() == 0 else ""
    known = check_same_images([store], workdir)
    mesh, learner = build.build_mesh(config), build.build_learner(config)
    checkpoints = open_checkpoints(config, workdir)
    images, optimiser = np.asarray(store.images[:2]), build.build_optimiser(config)
    newest, like = checkpoints.all()[-1], build.abstract_state(initialiser(config, trained), optimiser, images, mesh)
    if not checkpoints.fits(newest, like):
        check_shapes(config, changed, trained, workdir, images)
    check_values(changed, trained, workdir, images)
    state = checkpoints.restore(newest, like)
    if jax.process_index() == 0 and not only_printed:
        write_json(workdir / DATA_FILE, known)
    return Opened(path, only_printed, config, changed, learner, store, mesh, checkpoints, state)


def check_shapes(
    config: ConfigDict, changed: dict[str, Any], trained: ConfigDict, workdir: Path, images: np.ndarray
) -> None:
    """Refuses changes that need parameters of other shapes than those of the run.

    Args:
      config: the configuration of the test.
      changed: its changes, by field.
      trained: the configuration of the run.
      workdir: the folder of the run.
      images: two test images, ``[2, H, W, C]``.

    Raises:
      UserError: there are such changes. The line names them.
    """

    def shapes(config):
        params = jax.eval_shape(initialiser(config, trained).init, jax.random.key(0), images)
        return {path: leaf.shape for path, leaf in by_path(params).items()}

    own, needing = shapes(trained), []
    for field, value in changed.items():
        if field.startswith(("learner.", "episode.", "model.")) and shapes(_with(trained, field, value)) != own:
            needing.append(f"{field} is {value}, but the parameters were trained with {value_at(trained, field)}")
    if needing:
        raise UserError(f"{workdir} cannot be tested so: {'; '.join(needing)}; train another run for that")
    channels = images.shape[-1]
    if config.evaluation.data and config.evaluation.data != config.data.name:
        raise UserError(
            f"evaluation.data is {config.evaluation.data}, whose images have {channels} channel(s), other than those "
            f"of {config.data.name}, on which {workdir} was trained; give another data set"
        )


def check_values(changed: dict[str, Any], trained: ConfigDict, workdir: Path, images: np.ndarray) -> None:
    """Refuses changes of hyper-parameters that the parameters contain, such as the initial value of a learned rate.

    The parameters contain a hyper-parameter on which their initial values depend. A test that changed it would show
    the same numbers under another name, or read the learned values as others.

    Args:
      changed: the changes of the test, by field.
      trained: the configuration of the run.
      workdir: the folder of the run.
      images: two test images, ``[2, H, W, C]``.

    Raises:
      UserError: there is such a change. The line names it.
    """

    def start(config):
        return by_path(initialiser(config, trained).init(jax.random.key(0), images))

    hyper_parameters = [field for field in changed if field.startswith("learner.")]
    own = start(trained) if hyper_parameters else {}
    for field in hyper_parameters:
        theirs = start(_with(trained, field, changed[field]))
        if own.keys() != theirs.keys() or not all(np.array_equal(own[path], theirs[path]) for path in own):
            raise UserError(
                f"{field} is {changed[field]}, but {workdir} was trained with {value_at(trained, field)}, and the "
                "parameters contain it; train another run for that"
            )


def _with(config: ConfigDict, field: str, value: Any) -> ConfigDict:
    """A copy of a configuration in which one field has another value."""
    copy = ConfigDict(config.to_dict())
    copy.update_from_flattened_dict({field: value})
    return copy


def evaluate_run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Tests a run with the checkpoints at hand, by both query statistics side by side, and writes the results.

    Args:
      config: the run's own configuration, or one that ``open_for_test`` allows.
      workdir: the folder of the run. It receives ``results.json`` if the configuration is the run's own. Otherwise the
        name of the file says what was changed, such as ``results_shot=5.json``, and so does ``"changed"`` in it.

    Returns:
      The content of the file: the result of ``test_run``, and ``"by_query_statistics"``.

    Raises:
      UserError: ``open_for_test`` refuses the run, no checkpoint was validated, or a file cannot be written.
    """
    opened = open_for_test(config, workdir)
    results = test_run(opened.config, opened.learner, opened.store, opened.mesh, opened.checkpoints, opened.state)
    results["by_query_statistics"] = by_query_statistics(opened, results)
    if opened.changed:
        results["changed"] = opened.changed
    opened.checkpoints.close()
    if jax.process_index() == 0:
        for name, numbers in results["by_query_statistics"].items():
            print(f'query_statistics="{name}": {percent(numbers, results["num_tasks"])}')
        announce(results)
        write_results(opened, results)
    return results


def by_query_statistics(opened: Opened, results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The accuracies of ``test_run`` by ``"query"`` statistics, by ``"support"`` statistics, and by the given ones.

    If there is no batch normalisation, or the learner refuses the others or would need other parameters for them, they
    are only by the given ones.
    """
    found = {results["query_statistics"]: results}
    others = (
        ("query", "support") if "query_statistics" in opened.config.learner and has_batch_norm(opened.config) else ()
    )
    for name in others:
        if name in found:
            continue
        config = _with(opened.config, "learner.query_statistics", name)
        try:
            learner = build.build_learner(config)
        except UserError:  # such as "support" with support and query images encoded together
            continue
        needed = jax.eval_shape(learner.init, jax.random.key(0), opened.store.images[:2])
        if not by_path(needed).keys() <= by_path(opened.state.params).keys():
            continue  # MeTAL's losses of query images are trained with "query" statistics alone
        found[name] = test_run(config, learner, opened.store, opened.mesh, opened.checkpoints, opened.state)
    numbers = ("test_accuracy", "test_ci95_tasks", "test_ci95_pooled", "single_model_test_accuracy")
    return {name: {key: found[name][key] for key in numbers} for name in sorted(found)}


def initialiser(config: ConfigDict, trained: ConfigDict) -> MetaLearner:
    """The learner of ``config`` whose parameters have the shapes of a trained run's, running averages included."""
    config = ConfigDict(config.to_dict())
    if "query_statistics" in config.learner:
        config.learner.query_statistics = trained.learner.query_statistics
    return build.build_learner(config)


def write_results(opened: Opened, results: dict[str, Any]) -> None:
    """Writes the results of a test, if its file can be written.

    Raises:
      AlreadyTold: it cannot, and ``open_for_test`` said so before the work.
      UserError: it no longer can.
    """
    if opened.only_printed:
        raise AlreadyTold(opened.only_printed)
    write_json(opened.path, results)


def _tell_what_cannot_be_written(path: Path) -> str:
    """Says on stderr, before the work, why results cannot be written; returns the line, or "" if they can."""
    try:
        check_writable(path.parent)
    except UserError as error:
        line = f"{path} cannot be written ({error}); the result is printed only"
        print(f"cxgrad_jax: {line}", file=sys.stderr)
        return line
    return ""


def results_name(config: ConfigDict, changed: dict[str, Any], question: str = "") -> str:
    """The name ``results.json``, or one with the changed fields: ``results_cub.json``, ``results_shot=5_seed=1.json``.

    A further question comes first, ``results_question=parts.json``, then another data set. Characters that a name of a
    file cannot have everywhere are replaced by their codes, and the end of a long name by a digest of it.
    """
    data = [changed["evaluation.data"] or config.data.name] if "evaluation.data" in changed else []
    others = [f"{field.split('.')[-1]}={value}" for field, value in changed.items() if field != "evaluation.data"]
    name = "_".join(["results", *([f"question={question}"] if question else []), *data, *others])
    name = re.sub(r'[\x00-\x1f"%*/:<>?\\|]', lambda found: f"%{ord(found[0]):02X}", name)
    if len(name.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name.encode()[: LONGEST_NAME - 17].decode(errors='ignore')}-{digest}"
    return f"{name}.json"
