"""The reliability diagram of the test, which shows how far confidence can be believed. The paper has no such figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxgrad_jax.report.figures.style import forget, legend, panels, save, style
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.results import results_at_hand
from cxgrad_jax.report.study import Study, write_numbers
from cxgrad_jax.report.tables import MISSING, percent

TITLE = "Calibration of the test's predictions"
HEADINGS = (
    "test",
    "data",
    "accuracy",
    "mean confidence",
    "expected calibration error",
    "negative log-likelihood, nats",
)


def sections(study: Study) -> list[Section]:
    """Made from ``results.json``. If no version that measures calibration has tested a run, there is no section."""
    results = {run.name: results_at_hand(run.workdir) or {} for run in study.runs}
    remarks = [
        f"{name} is not shown: its results.json has no calibration. --mode=evaluate writes it again."
        for name, found in results.items()
        if "reliability" not in found
    ]
    results = {name: found for name, found in results.items() if "reliability" in found}
    if not results:
        forget(study.folder, "calibration")
        return []
    bins = {name: {key: _floats(found["reliability"][key]) for key in KEYS} for name, found in results.items()}
    lines = [
        (name, i, *(None if np.isnan(found[key][i]) else found[key][i] for key in KEYS))
        for name, found in bins.items()
        for i in range(_bins(found))
    ]
    write_numbers(study, "calibration", ("run", "bin", *KEYS), lines)
    caption = [
        "Left: share of right predictions against the confidence in them, the largest class probability, in bins of "
        "equal width. On the diagonal, confidence is what it says; below it, the learner is too sure. Bins with fewer "
        "than 20 predictions are left out. Right: how many predictions fall into each bin.",
        "Predictions are those of the test: the ensemble's averaged logits, through a softmax. RelationNet is trained "
        "on other scores, so that its softmax means little. The expected calibration error is the mean distance to the "
        "diagonal, weighted by the predictions of the bins (Guo et al., ICML 2017).",
    ]
    image = save(draw(bins), study.folder, "calibration")
    table = [HEADINGS, *(table_line(name, found, bins[name]) for name, found in results.items())]
    return [Section(TITLE, image, caption + remarks, table)]


KEYS = ("count", "accuracy", "confidence")
LEAST = 20  # a bin with fewer predictions is not shown


def table_line(name: str, found: Mapping[str, Any], bins: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A line of the table."""
    likelihood = found["test_negative_log_likelihood"]
    confidence = float(np.nansum(bins["count"] * bins["confidence"]) / bins["count"].sum())
    return (
        name,
        found["test_data"],
        percent(found["test_accuracy"]),
        percent(confidence),
        percent(found["test_expected_calibration_error"]),
        MISSING if likelihood is None else f"{likelihood:.4f}",
    )


def draw(bins: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draws two panels, accuracy and share of predictions by confidence, with a line for each run."""
    figure, (axes,) = panels(1, 2, 8.4, 3.8)
    axes[0].plot([0, 100], [0, 100], color="0.6", linewidth=1, zorder=1)
    for i, found in enumerate(bins.values()):
        shown = found["count"] >= LEAST
        axes[0].plot(100 * found["confidence"][shown], 100 * found["accuracy"][shown], **style(i))
        middles = 100 * (np.arange(_bins(found)) + 0.5) / _bins(found)
        axes[1].plot(middles, 100 * found["count"] / found["count"].sum(), **style(i))
    axes[0].set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xlabel="confidence, %")
    axes[0].set_title("right predictions, %", fontsize=10)
    axes[1].set(xlim=(0, 100), ylim=(0, None), xlabel="confidence, %")
    axes[1].set_title("share of the predictions, %", fontsize=10)
    legend(axes[0], [(run, style(i)) for i, run in enumerate(bins)], fontsize=8, loc="upper left")
    return figure


def _bins(found: Mapping[str, np.ndarray]) -> int:
    return len(found["count"])


def _floats(values: list[float | None]) -> np.ndarray:
    return np.asarray([np.nan if value is None else value for value in values], float)
