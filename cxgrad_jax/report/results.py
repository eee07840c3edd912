"""The results of runs, which are read if they are at hand, and else made by training, resuming or testing."""

import contextlib
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cxgrad_jax import parallel
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import check_writable, write_json
from cxgrad_jax.fitting import init_state
from cxgrad_jax.learners._statistics import without_statistics
from cxgrad_jax.training import build, checks
from cxgrad_jax.training.config import ConfigDict, to_json
from cxgrad_jax.training.dry_run import needed_bytes
from cxgrad_jax.training.evaluate import WITHOUT_EFFECT_ON_QUESTIONS, evaluate_run, results_name
from cxgrad_jax.training.images_of_run import are_alike, check_same_images, description
from cxgrad_jax.training.train import train
from cxgrad_jax.training.workdir import check_extends

TIMED_DISPATCHES = 3


class Planned(NamedTuple):
    """A run that a table needs, trained or not.

    Attributes:
      name: its name in messages.
      config: its configuration.
      workdir: its folder.
    """

    name: str
    config: ConfigDict
    workdir: Path


def planned(name: str, config: ConfigDict, workdir: Path, seeds: int | None) -> list[Planned]:
    """The runs of a configuration.

    Args:
      name: the name of the configuration.
      config: the configuration.
      workdir: the folder of the one run, or of the folders ``seed_0``, ``seed_1``, ….
      seeds: the number of runs, whose ``config.seed`` counts from 0. None means one run with the configuration's seed.
    """
    if seeds is None:
        return [Planned(name, config, workdir)]
    runs = []
    for seed in range(seeds):
        seeded = ConfigDict(config.to_dict())
        seeded.seed = seed
        runs.append(Planned(f"{name}, seed {seed}", seeded, workdir / f"seed_{seed}"))
    return runs


def check_all(runs: Iterable[tuple[Planned, str]], given: Path) -> None:
    """Refuses runs that cannot be made or were tested on different images of one name, before anything is trained.

    Args:
      runs: the runs, each with another data set to test on, or an empty string.
      given: the value of ``--workdir``.

    Raises:
      UserError: a configuration or folder is refused, a data set is not prepared, or the folder cannot be written. The
        line names the run, and the field, data set or folder.
    """
    known, tested_on = {}, {}
    for run, other in runs:
        try:
            checks.check(run.config)
            checks.check_parallel(run.config)
            tested = other or run.config.evaluation.data or run.config.data.name
            needs = (run.config.data.to_json(), run.config.episode.to_json(), tested)
            if needs not in known:
                own = build.load_stores(run.config, ("train", "val"))
                known[needs] = [*own.values(), *build.load_stores(run.config, ("test",), tested).values()]
            check_same_images(known[needs], run.workdir)
            test_store = known[needs][-1]
            ours, which = description(test_store), (test_store.name, test_store.images.shape[1:])
            first, theirs = tested_on.setdefault(which, (run.name, ours))
            if not are_alike(ours, theirs):
                raise UserError(
                    f"{test_store.name}, split test, has other images here than for {first}, and their numbers cannot "
                    "stand in one table; give one data.dir for all"
                )
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from None
        if (run.workdir / "config.json").exists():
            check_extends(run.config, run.workdir, given)
    check_writable(given)


def read_or_make(
    path: Path, is_wanted: Callable[[dict[str, Any]], bool], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The content of a JSON file if it is wanted, else the result of ``make``.

    A file is not wanted if it is missing, cut short or without a field that ``is_wanted`` asks for.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if is_wanted(content):
            return content
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return make()


def results_at_hand(workdir: Path) -> dict[str, Any] | None:
    """The ``results.json`` of a run, finished or not. None means that there is none that can be read."""
    return read_or_make(workdir / "results.json", _is_whole, dict) or None


def answers_at_hand(workdir: Path, question: str, checkpoint: int | None = None) -> dict[str, dict[str, Any]]:
    """The answers of a run to a further question, by name (``training.asking``). There are none if it was not asked.

    Answers on other data, of other episodes or from another seed do not count. If a run has several files, the one over
    the most episodes counts. Among equals it is the one with the most answers, as when ``inner_steps`` was asked with
    different numbers of steps.

    Args:
      workdir: the folder of the run.
      question: the name of the question.
      checkpoint: the iteration of the checkpoint that answered. None means any.
    """
    files = sorted(workdir.glob(f"results_question={question}*.json"))
    found = [read_or_make(path, functools.partial(_are_own_answers, question), dict) for path in files]
    own = [each for each in found if each and checkpoint in (None, each.get("checkpoint"))]
    return max(own, key=lambda each: (each["num_tasks"], len(each["answers"])), default={"answers": {}})["answers"]


def _are_own_answers(question: str, found: dict[str, Any]) -> bool:
    numbers, harmless = ("test_accuracy", "test_ci95_tasks"), {"evaluation.episodes", *WITHOUT_EFFECT_ON_QUESTIONS}
    if question == "inner_steps":  # more steps are more answers, and the first ones stay what they are
        harmless |= {"learner.num_steps"}
    whole = all(_is_number(answer[name]) for answer in found["answers"].values() for name in numbers)
    return whole and _is_number(found["num_tasks"]) and found.get("changed", {}).keys() <= harmless


def _is_whole(found: dict[str, Any]) -> bool:
    """Whether the content of a ``results.json`` has what tables and reports show, in the right types."""
    shares = ("test_accuracy", "test_ci95_tasks", "test_ci95_pooled", "single_model_test_accuracy")
    kinds = {"iterations": int, "num_tasks": int, "ensemble_size": int, "test_data": str, "config": dict}
    accuracies = found["episode_accuracies"]
    return (
        all(_is_number(found[name]) for name in shares)
        and all(type(found[name]) is kind for name, kind in kinds.items())
        and len(accuracies) == found["num_tasks"]
        and all(map(_is_number, accuracies))
        and ("reliability" not in found or _is_calibrated(found))
    )


def _is_calibrated(found: dict[str, Any]) -> bool:
    """Whether the calibration in a ``results.json`` has the right types. None in it means no number."""
    likelihood, bins = found["test_negative_log_likelihood"], found["reliability"]
    return (
        _is_number(found["test_expected_calibration_error"])
        and (likelihood is None or _is_number(likelihood))
        and all(x is None or _is_number(x) for name in ("count", "accuracy", "confidence") for x in bins[name])
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def results_of(run: Planned) -> dict[str, Any]:
    """The results of a run. If it is not done, it is trained, or resumed where it stopped.

    Raises:
      UserError: ``train`` raises it.
      Interrupted: the run was asked to stop, and its state is saved.
    """

    def is_wanted(found):
        # A run that was stopped may have been tested, too.
        done = found["iterations"] == run.config.train.iterations
        return done and found["config"] == to_json(run.config) and _is_whole(found)

    def make():
        print(f"{run.name}: training in {run.workdir}", file=sys.stderr)
        return train(run.config, run.workdir)

    return read_or_make(run.workdir / "results.json", is_wanted, make)


def results_elsewhere(run: Planned, data: str) -> dict[str, Any]:
    """The results of a run on another data set than its own.

    Raises:
      UserError: ``train`` or ``evaluate_run`` raises it.
    """
    own = results_of(run)
    if data in ("", own["test_data"]):
        return own
    config = ConfigDict(run.config.to_dict())
    config.evaluation.data = data
    return read_or_make(
        run.workdir / results_name(config, {"evaluation.data": data}),
        lambda found: (
            found["params_sha256"] == own["params_sha256"] and found["config"] == to_json(config) and _is_whole(found)
        ),
        lambda: evaluate_run(config, run.workdir),
    )


def costs_of(run: Planned) -> dict[str, Any]:
    """The result of ``measure``, which the run's ``comparison.json`` keeps for one kind of device and its division."""
    path, device = run.workdir / "comparison.json", jax.devices()[0].device_kind
    where = {"device": device, "iterations_per_dispatch": build.iterations_per_dispatch(run.config)}
    where |= run.config.parallel.to_dict() | {"num_devices": build.num_devices(run.config)}

    def make():
        costs = {**measure(run.config), **where}
        with contextlib.suppress(UserError):  # measured again the next time
            write_json(path, costs)
        return costs

    def is_wanted(found):
        numbers = [found[name] for name in ("num_parameters", "seconds_per_iteration", "memory_bytes")]
        here = all(found[name] == value for name, value in where.items())
        return here and all(value is None or _is_number(value) for value in numbers)

    return read_or_make(path, is_wanted, make)


def measure(config: ConfigDict) -> dict[str, Any]:
    """Measures the parameters, and the time and memory of a training iteration whose episodes are at hand.

    Returns:
      ``"num_parameters"``; ``"seconds_per_iteration"``, the median of some calls of the compiled training program
      after a first one; and ``"memory_bytes"`` of that program on all devices, which are its inputs, outputs and
      temporaries by the compiler's analysis, or None if it has none. Time and memory leave out the store of images and
      validation.
    """
    store = build.load_stores(config, ("train",))["train"]
    mesh, per_dispatch = build.build_mesh(config), build.iterations_per_dispatch(config)
    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    source = build.build_source(config, store, mesh, "host")
    episodes = next(source.arrays([(0, per_dispatch)]))
    state = parallel.put(mesh, init_state(learner, optimiser, config.seed, np.asarray(store.images[:2])))
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(without_statistics(state.params)))
    program = build.build_program(config, learner, optimiser, mesh, source, per_dispatch)
    program = program.lower(state, episodes).compile()
    state, _ = jax.block_until_ready(program(state, episodes))
    seconds = []
    for _ in range(TIMED_DISPATCHES):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program(state, episodes))
        seconds.append((time.perf_counter() - start) / per_dispatch)
    memory = program.memory_analysis()
    return {
        "num_parameters": num_parameters,
        "seconds_per_iteration": statistics.median(seconds),
        "memory_bytes": memory and mesh.size * needed_bytes(memory),
        "num_devices": mesh.size,
    }
