"""Pictures of the analyses, from arrays: readable in print and by colour-blind readers, PNG and SVG of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's palette, each colour with a line style and a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 1)))
MARKERS = "osD^vPX"


def style(i: int) -> dict:
    """Colour, line style and marker of the i-th thing of a picture."""
    n = len(COLOURS)
    return {"color": COLOURS[i % n], "linestyle": DASHES[i % n], "marker": MARKERS[i % n], "markersize": 4}


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure and its axes ``[rows, columns]``; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure, axes


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Writes ``name.png`` and ``name.svg``, the same bytes for the same picture, and returns the former's path."""
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=160)
    return folder / f"{name}.png"


def gradient_norms(norms: Mapping[str, Mapping[str, np.ndarray]], iterations: Mapping[str, np.ndarray]) -> Figure:
    """Figure 2: a panel a run, a line a layer.

    Args:
      norms: by run and layer, ``[records]``; drawn as means over a fiftieth of the training at a time.
      iterations: by run, ``[records]``.
    """
    figure, axes = panels(1, len(norms), 2 + 3.2 * len(norms), 3.4)
    names = list(dict.fromkeys(layer for layers in norms.values() for layer in layers))
    for axis, (run, layers) in zip(axes[0], norms.items(), strict=True):
        window = max(1, len(iterations[run]) // 50)
        for layer, values in layers.items():
            x, y = binned(iterations[run], window), binned(values, window)
            axis.plot(x, y, **style(names.index(layer)), markevery=5)
        axis.set_yscale("log")
        axis.set_title(run, fontsize=10)
        axis.set_xlabel("outer iteration")
    axes[0, 0].set_ylabel("norm of the inner gradient")
    limits = [axis.get_ylim() for axis in axes[0]]
    for axis in axes[0]:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    handles = [Line2D([], [], **style(i), label=layer) for i, layer in enumerate(names)]
    figure.legend(handles=handles, fontsize=8, loc="outside right center")
    return figure


def binned(values: np.ndarray, window: int) -> np.ndarray:
    """Means of ``window`` values at a time; what is left at the end is dropped."""
    return np.asarray(values)[: len(values) // window * window].reshape(-1, window).mean(axis=1)


def cka(
    layers: Sequence[str], means: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Figure 3: CKA over layers, a line a run with its 95 % interval over tasks; values by run and layer."""
    figure, axes = panels(1, 1, 5.2, 3.4)
    for i, run in enumerate(means):
        values, errors = ([by_run[run].get(layer, np.nan) for layer in layers] for by_run in (means, intervals))
        axes[0, 0].errorbar(range(len(layers)), values, errors, label=run, capsize=3, **style(i))
    axes[0, 0].set_xticks(range(len(layers)), layers)
    axes[0, 0].set_ylabel("CKA before and after adaptation")
    axes[0, 0].legend(fontsize=8)
    return figure


def embeddings(
    planes: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], labels: np.ndarray, rows: Sequence[str]
) -> Figure:
    """Figure 4: a row a data set, two panels a run (before and after adaptation) in one plane, a class a marker.

    Args:
      planes: by data set and run, points ``[N, 2]`` before and after.
      labels: class of each point, ``[N]``.
      rows: titles of the data sets.
    """
    runs = list(planes[rows[0]])
    figure, axes = panels(len(rows), 2 * len(runs), 2.3 * 2 * len(runs), 2.4 * len(rows) + 0.3)
    for line, row in zip(axes, rows, strict=True):
        for j, run in enumerate(runs):
            both = np.concatenate(planes[row][run])
            for axis, points, when in zip(line[2 * j : 2 * j + 2], planes[row][run], ("before", "after"), strict=True):
                for c in np.unique(labels):
                    x, y = points[labels == c].T
                    axis.scatter(x, y, s=14, color=COLOURS[c % len(COLOURS)], marker=MARKERS[c % len(MARKERS)])
                margin = 0.05 * (both.max(axis=0) - both.min(axis=0))
                low, high = both.min(axis=0) - margin, both.max(axis=0) + margin
                axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
                axis.grid(False)
                axis.set_title(f"{run}, {when}", fontsize=9)
        line[0].set_ylabel(row)
    return figure


def landscape(iterations: Mapping[str, Sequence[int]], measures: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Figure 5: loss, distance of gradients and smoothness over training, a line or band a run.

    Args:
      iterations: of the checkpoints, by run.
      measures: by run: ``"loss"`` and ``"distance"`` ``[checkpoints, J]``, drawn as bands over the rates, and
        ``"smoothness" [checkpoints]``.
    """
    figure, axes = panels(1, 3, 10.5, 3.4)
    titles = {
        "loss": "(a) loss, nats",
        "distance": "(b) distance of gradients",
        "smoothness": "(c) effective smoothness",
    }
    for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
        for i, (run, values) in enumerate(measures.items()):
            if values[name].ndim == 2:
                low, high = values[name].min(axis=1), values[name].max(axis=1)
                axis.fill_between(iterations[run], low, high, color=COLOURS[i % len(COLOURS)], alpha=0.25, linewidth=0)
                axis.plot(iterations[run], values[name].mean(axis=1), label=run, **style(i))
            else:
                axis.plot(iterations[run], values[name], label=run, **style(i))
        if name != "loss":
            axis.set_yscale("log")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("outer iteration")
    axes[0, 0].legend(fontsize=8)
    return figure


def conditioning(gamma: Mapping[str, np.ndarray], norms: Mapping[str, np.ndarray], layers: Sequence[str]) -> Figure:
    """Factors by layer and step, their spread over tasks relative to the mean, and the context's norm by step.

    Args:
      gamma: by run, ``[episodes, steps, L]``.
      norms: by run, ``[episodes, steps]``.
      layers: names of the L scaled kernels.
    """
    figure, axes = panels(1, 3, 10.5, 3.4)
    factors, spread, context = axes[0]
    for i, (run, values) in enumerate(gamma.items()):
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        for s in range(values.shape[1]):
            factors.plot(range(len(layers)), mean[s], **style(i), alpha=0.35 + 0.65 * (s + 1) / values.shape[1])
        spread.plot(range(len(layers)), (deviation / mean).max(axis=0), **style(i))
        middle, low, high = np.quantile(norms[run], [0.5, 0.025, 0.975], axis=0)
        steps = np.arange(1, len(middle) + 1)
        context.errorbar(steps, middle, [middle - low, high - middle], capsize=3, **style(i))
    for axis, title in ((factors, "factor, mean over tasks"), (spread, "spread over tasks / mean, largest step")):
        axis.set_xticks(range(len(layers)), layers, rotation=30 if len(layers) < 6 else 90, ha="right")
        axis.set_title(title, fontsize=10)
        axis.set_yscale("log")
    context.set(yscale="log", xlabel="inner step")
    context.set_title("norm of the context, 95 % of tasks", fontsize=10)
    handles = [Line2D([], [], **style(i), label=run) for i, run in enumerate(gamma)]
    factors.legend(handles=handles, fontsize=8)
    return figure
