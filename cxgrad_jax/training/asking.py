"""``--mode=evaluate --question=NAME``: a further question to a run, answered by its best checkpoint in validation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from cxgrad_jax import questions
from cxgrad_jax.episodes import Sampler
from cxgrad_jax.evaluation import Evaluation
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.training import build
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.evaluate import open_for_test, write_results
from cxgrad_jax.training.testing import origin, percent


def ask_run(config: ConfigDict, workdir: str | Path, question: str) -> dict[str, Any]:
    """Asks a run a further question, prints the answers and writes them.

    Args:
      config: the run's own, or with changes that ``evaluate.open_for_test`` allows. ``learner.num_steps`` is the number
        of inner steps that ``"inner_steps"`` takes.
      workdir: the folder of the run. It receives ``results_question=NAME.json``, or a file with the changes in its
        name.
      question: one of ``QUESTIONS``.

    Returns:
      The content of the file: ``"answers"`` by name, each with accuracy, its interval over tasks, and the accuracy of
      every episode; ``"checkpoint"``, the iteration of the parameters; and the origin of the numbers as in
      ``results.json``.

    Raises:
      UserError: ``open_for_test`` refuses the run, no checkpoint was validated, the learner has no answer, or the file
        cannot be written.
    """
    opened = open_for_test(config, workdir, question)
    best = opened.checkpoints.best()[0]
    state = opened.checkpoints.restore(best, opened.state)
    opened.checkpoints.close()
    sampler = build.build_sampler(config, opened.store)
    found = QUESTIONS[question](opened.learner, state.params, sampler, config.evaluation.episodes)
    results = {
        "question": question,
        "answers": {name: numbers(answer) for name, answer in found.items()},
        "num_tasks": config.evaluation.episodes,
        "checkpoint": best,
        **origin(opened.config, state),
        **({"changed": opened.changed} if opened.changed else {}),
    }
    if jax.process_index() == 0:
        for name, answer in results["answers"].items():
            print(f"{name}: {percent(answer, results['num_tasks'])}")
        print(f"checkpoint {best} alone, {results['num_tasks']} tasks of {results['test_data']}", flush=True)
        write_results(opened, results)
    return results


def numbers(answer: Evaluation) -> dict[str, Any]:
    """An answer in the form of the file."""
    return {
        "test_accuracy": answer.accuracy,
        "test_ci95_tasks": answer.ci95,
        "episode_accuracies": [round(float(value), 6) for value in answer.accuracies],
    }


def _steps(learner: MetaLearner, params: Any, sampler: Sampler, episodes: int) -> dict[str, Evaluation]:
    found = questions.evaluate_by_step(learner, params, sampler, episodes=episodes, progress=True)
    return {f"after {steps} inner steps": answer for steps, answer in enumerate(found)}


def _parts(learner: MetaLearner, params: Any, sampler: Sampler, episodes: int) -> dict[str, Evaluation]:
    found = questions.evaluate_by_part(learner, params, sampler, episodes=episodes, progress=True)
    return {f"{part} adapted": answer for part, answer in found.items()}


def _permutations(learner: MetaLearner, params: Any, sampler: Sampler, episodes: int) -> dict[str, Evaluation]:
    found = questions.evaluate_permutations(learner, params, sampler, episodes=episodes, progress=True)
    return {"mean over the orders": found.mean, "best order": found.best, "worst order": found.worst}


QUESTIONS: dict[str, Callable[[MetaLearner, Any, Sampler, int], dict[str, Evaluation]]] = {
    "inner_steps": _steps,
    "parts": _parts,
    "permutations": _permutations,
}
