"""Figure 2: the norms of the inner loop's gradients over training, as they were recorded."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from cxgrad_jax.report.figures.style import binned, forget, legend, panels, plain, save, style
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.measured_runs import MeasuredRun
from cxgrad_jax.report.study import Study, write_numbers
from cxgrad_jax.report.tables import MISSING
from cxgrad_jax.training.metrics_file import read_metrics

TITLE = "Gradient norms in the inner loop, over training (Figure 2)"
RECORDED = "train_inner_gradient_norm/"


def sections(study: Study) -> list[Section]:
    found = {run.name: recorded(run) for run in study.runs}
    remarks = [
        f"{name} is not shown: its metrics.jsonl has no norms of inner gradients."
        for name, (iterations, _) in found.items()
        if not len(iterations)
    ]
    found = {name: record for name, record in found.items() if len(record[0])}
    if not found:
        forget(study.folder, "gradient_norms")
        return [Section(TITLE, None, remarks)]
    lines = (
        (name, layer, *each)
        for name, (iterations, norms) in found.items()
        for layer, values in norms.items()
        for each in zip(iterations, values, strict=True)
    )
    write_numbers(study, "gradient_norms", ("run", "layer", "iteration", "norm"), lines)
    layers = list(dict.fromkeys(layer for _, norms in found.values() for layer in norms))
    table = [("mean over the last tenth of training", *layers)]
    for name, (_, norms) in found.items():
        ends = {layer: values[-max(1, len(values) // 10) :].mean() for layer, values in norms.items()}
        table.append((name, *(f"{ends[layer]:.3g}" if layer in ends else MISSING for layer in layers)))
    caption = [
        "l2 norm of the support gradient with respect to each adapting kernel, averaged over the inner steps and the "
        "training tasks of an iteration. Lines are means over a fiftieth of the training. CxGrad's gradients are those "
        "with respect to the scaled kernels, which its updates use. The head is its kernel without the bias.",
    ]
    return [Section(TITLE, save(draw(found), study.folder, "gradient_norms"), caption + remarks, table)]


def recorded(run: MeasuredRun) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Iterations ``[records]``, and norms ``[records]`` by layer. Both are empty if training recorded none."""
    records = [each for each in read_metrics(run.workdir / "metrics.jsonl") if "train_loss" in each]
    layers = [name.removeprefix(RECORDED) for name in records[-1] if name.startswith(RECORDED)] if records else []
    records = [each for each in records if layers and all(each.get(RECORDED + layer) is not None for layer in layers)]
    iterations = np.asarray([each["iteration"] for each in records])
    return iterations, {layer: np.asarray([each[RECORDED + layer] for each in records]) for layer in layers}


def draw(found: Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]) -> Figure:
    """Draws a panel for each run with a line for each layer, from the results of ``recorded`` by run."""
    figure, axes = panels(1, len(found), 2 + 3.2 * len(found), 3.4)
    names = list(dict.fromkeys(layer for _, norms in found.values() for layer in norms))
    for axis, (run, (iterations, norms)) in zip(axes[0], found.items(), strict=True):
        window = max(1, len(iterations) // 50)
        for layer, values in norms.items():
            axis.plot(binned(iterations, window), binned(values, window), **style(names.index(layer)), markevery=5)
        axis.set_yscale("log")
        axis.set_title(plain(run), fontsize=10)
        axis.set_xlabel("outer iteration")
    axes[0, 0].set_ylabel("norm of the inner gradient")
    limits = [axis.get_ylim() for axis in axes[0]]
    for axis in axes[0]:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    legend(figure, [(layer, style(i)) for i, layer in enumerate(names)], fontsize=8, loc="outside right center")
    return figure
