"""The test of a run: an ensemble of its best checkpoints, on fixed episodes."""

import sys
from typing import Any

import flax
import jax
import numpy as np
from jax.sharding import Mesh
from tqdm.auto import tqdm

import cxgrad_jax
from cxgrad_jax import evaluation
from cxgrad_jax.analysis import calibration
from cxgrad_jax.data import ImageStore
from cxgrad_jax.fitting import TrainState
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.saving import params_sha256
from cxgrad_jax.training import build
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config import ConfigDict, to_json
from cxgrad_jax.training.interruption import stop_together
from cxgrad_jax.training.transductive import batch_norm

SIZES = ("evaluation.episodes", "evaluation.val_episodes", "evaluation.ensemble")


def test_run(
    config: ConfigDict, learner: MetaLearner, store: ImageStore, mesh: Mesh, checkpoints: Checkpoints, state: TrainState
) -> dict[str, Any]:
    """The paper's test protocol: logits averaged over the checkpoints best in validation, on fixed test episodes.

    Args:
      config: the configuration of the run. ``config.evaluation`` says on what data and how to test.
      learner: the learner of the run.
      store: the test images.
      mesh: the mesh to evaluate on.
      checkpoints: the checkpoints of the run.
      state: the newest state, which gives shapes and the iterations done.

    Returns:
      The content of ``results.json``.

    Raises:
      UserError: no checkpoint was validated.
      Interrupted: one of several processes was asked to stop.
    """
    sampler, num_episodes = build.build_sampler(config, store), config.evaluation.episodes
    evaluator = evaluation.over_episodes(evaluation.query_logits(learner), sampler.batch, num_episodes, mesh)
    chosen = checkpoints.best()[: config.evaluation.ensemble]
    logits = []
    with stop_together("stopped in the test, after the training was saved; run the same command to go on") as poll:
        for iteration in tqdm(chosen, desc="test", unit="checkpoint", disable=jax.process_index() != 0):
            logits.append(evaluator(checkpoints.restore(iteration, state).params, poll))
    labels = sampler.shape.labels()[1]
    ensemble = evaluation.evaluation_of(np.mean(logits, axis=0), labels)
    wrong = int(np.isnan(logits).any(axis=(0, -1)).sum())
    if wrong and jax.process_index() == 0:
        predictions = num_episodes * len(labels)
        print(
            f"{wrong} of {predictions} predictions have a logit that is not a number; they count as wrong",
            file=sys.stderr,
        )
    singles = [evaluation.evaluation_of(each, labels) for each in logits]
    return {
        "test_accuracy": ensemble.accuracy,
        "test_ci95_tasks": ensemble.ci95,
        "test_ci95_pooled": ensemble.ci95_pooled,
        "num_tasks": num_episodes,
        "ensemble_size": len(chosen),
        "ensemble_iterations": chosen,
        "episode_accuracies": [round(float(value), 6) for value in ensemble.accuracies],
        "single_model_test_accuracy": singles[0].accuracy,
        "single_model_test_ci95_tasks": singles[0].ci95,
        "checkpoint_test_accuracies": [each.accuracy for each in singles],
        **calibration_of(np.mean(logits, axis=0), labels),
        **origin(config, state),
    }


def calibration_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The calibration of query logits ``[episodes, N, way]`` in the form of ``results.json``. None means no number."""
    found = calibration(logits, labels)

    def numbers(values):
        return [round(float(value), 6) if np.isfinite(value) else None for value in values]

    (likelihood,) = numbers([found.negative_log_likelihood])
    bins = {
        "count": found.counts.tolist(),
        "accuracy": numbers(found.accuracy),
        "confidence": numbers(found.confidence),
    }
    return {
        "test_negative_log_likelihood": likelihood,
        "test_expected_calibration_error": round(found.error, 6),
        "reliability": bins,
    }


def origin(config: ConfigDict, state: TrainState) -> dict[str, Any]:
    """The origin of the numbers, which every file of results has."""
    return {
        "test_data": config.evaluation.data or config.data.name,
        "batch_norm": batch_norm(config),
        "query_statistics": config.learner.get("query_statistics", "query"),
        "iterations": int(state.iteration),
        "params_sha256": params_sha256(jax.device_get(state.params)),
        "versions": {"jax": jax.__version__, "flax": flax.__version__, "cxgrad_jax": cxgrad_jax.__version__},
        "config": to_json(config),
    }


def percent(numbers: dict[str, Any], num_tasks: int) -> str:
    """A test's accuracy in per cent, with its interval over tasks; one task has none."""
    interval = f" ± {100 * numbers['test_ci95_tasks']:.2f}" if num_tasks > 1 else ""
    return f"{100 * numbers['test_accuracy']:.2f} %{interval}"


def announce(results: dict[str, Any]) -> None:
    """Prints the last line of the command line."""
    told = (*SIZES, "evaluation.data")  # the line has these in any case
    changed = {field: value for field, value in results.get("changed", {}).items() if field not in told}
    done, planned = results["iterations"], results["config"]["train"]["iterations"]
    unfinished = f", after {done:,} of {planned:,} iterations" if done < planned else ""
    changes = "".join(f", {field}={value}" for field, value in changed.items())
    print(
        f"test accuracy {percent(results, results['num_tasks'])} "
        f"({results['num_tasks']} tasks of {results['test_data']}, ensemble of {results['ensemble_size']}"
        f"{unfinished}{changes})",
        flush=True,
    )
