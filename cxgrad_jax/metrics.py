"""Accuracies, confidence intervals, digests, and the files that hold a run's numbers."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np


def episode_accuracies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy of each episode, ``[episodes]`` in [0, 1], from logits ``[episodes, N, way]`` and labels ``[N]``."""
    return np.mean(np.argmax(logits, axis=-1) == labels, axis=-1)


def ci95_tasks(accuracies: np.ndarray) -> float:
    """Half-width of the 95 % interval of the mean over tasks: ``1.96 * std / sqrt(tasks)``."""
    return float(1.96 * np.std(accuracies) / np.sqrt(len(accuracies)))


def ci95_pooled(accuracy: float, num_predictions: int) -> float:
    """Half-width as the paper prints it: binomial over all predictions, ``1.96 * sqrt(p (1 - p) / n)``.

    It knows nothing of the spread between tasks and is therefore smaller than ``ci95_tasks``.
    """
    return float(1.96 * np.sqrt(accuracy * (1 - accuracy) / num_predictions))


def paired(ours: np.ndarray, first: np.ndarray) -> dict[str, float]:
    """Mean difference of accuracies ``[episodes]``, its 95 % interval, and the two-sided p of a paired t-test."""
    from scipy import stats  # slow to import, and seldom needed

    difference = np.asarray(ours) - np.asarray(first)
    p_value = 1.0 if not np.any(difference) else float(stats.ttest_rel(ours, first).pvalue)
    return {"difference": float(difference.mean()), "difference_ci95": ci95_tasks(difference), "p_value": p_value}


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits ``[episodes, N, way]`` and labels ``[N]``."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return float(-np.mean(np.take_along_axis(log_probabilities, labels[None, :, None], axis=-1)))


def params_sha256(params: Any) -> str:
    """Digest of meta-parameters: SHA-256 over the path, dtype, shape and bytes of every leaf, in path order."""
    digest = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(params)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, each with the ``"iteration"`` after which it was written.

    Opening drops what lies beyond ``iteration``, the point from which the run goes on, and a line cut short by a kill.
    """

    def __init__(self, path: Path, iteration: int):
        self._path = path
        kept = [record for record in read_metrics(path) if record["iteration"] <= iteration]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(temporary, path)

    def write(self, **record: Any) -> None:
        """Appends one record."""
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; none if it does not exist. A last line cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
