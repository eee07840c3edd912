"""Figure 5: the support loss around the states of the inner loop, over training."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from cxgrad_jax import analysis
from cxgrad_jax.analysis._landscape import RATES, Landscape
from cxgrad_jax.report.figures.measured import measured
from cxgrad_jax.report.figures.style import COLOURS, forget, legend, panels, plain_numbers, save, style
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.study import Study, adapting, over_episodes_of, remarks, write_numbers

TITLE = "The landscape of the inner loop, over training (Figure 5)"


def sections(study: Study) -> list[Section]:
    number, split = study.options.landscape_episodes, study.options.landscape_split
    store = next(store for (_, part), store in study.stores.items() if part == split)

    def over_training(run):
        evaluator = over_episodes_of(study, run, analysis.landscape, number, store=store)
        means = []
        for iteration in tqdm(run.iterations, desc=f"landscape, {run.name}", unit="checkpoint"):
            means.append(jax.tree.map(lambda x: x.mean(axis=(0, 1)), evaluator(run.restore(iteration))))
        return jax.tree.map(lambda *x: np.stack(x), *means)

    found, missing = measured(adapting(study), over_training)
    if not found:
        forget(study.folder, "landscape")
        return [Section(TITLE, None, missing + remarks(study))]
    iterations = {run.name: run.iterations for run in study.runs}
    lines = []
    for name, (loss, distance, smoothness) in found.items():
        for i, iteration in enumerate(iterations[name]):
            points = zip(RATES, loss[i], distance[i], strict=True)
            lines += [(name, iteration, *point) for point in points]
            lines.append((name, iteration, "", "", "", smoothness[i]))
    head = ("run", "iteration", "rate", "loss", "distance", "smoothness")
    write_numbers(study, "landscape", head, lines)
    table: list[tuple[str, ...]] = [("last checkpoint", "loss, from – to", "distance, from – to", "smoothness")]
    for name, (loss, distance, smoothness) in found.items():
        ranges = (f"{values[-1].min():.3g} – {values[-1].max():.3g}" for values in (loss, distance))
        table.append((name, *ranges, f"{smoothness[-1]:.3g}"))
    which = {"train": "training", "val": "validation", "test": "test"}[split]
    caption = [
        f"The support loss around every state of the inner loop, mean over {number} {which} episodes of {store.name} "
        "and the inner steps, at each checkpoint at hand and before training. From a state, points are reached along "
        f"the gradient with the rates {RATES[0]:g} to {RATES[-1]:g} (Eq. 9); bands span these rates, lines are their "
        "mean. (a) Loss there, Eq. 10. (b) l2 distance of the gradient there from the one at the state, Eq. 11. (c) "
        "The largest such distance over the length of the move, Eq. 12. CxGrad is measured in the scaled kernels and "
        "the head, with the factors of the step held fixed.",
    ]
    caption += [
        f"{run.name} has no point before training: it started from {run.config.train.start_from}, which cannot be read."
        for run in adapting(study)
        if run.name in found and run.iterations[0] != 0
    ]
    image = save(draw(iterations, found), study.folder, "landscape")
    return [Section(TITLE, image, caption + missing + remarks(study), table)]


def draw(iterations: Mapping[str, Sequence[int]], found: Mapping[str, Landscape]) -> Figure:
    """Draws a line or a band for each run.

    Args:
      iterations: the iterations of the checkpoints, by run.
      found: the landscapes by run: ``loss`` and ``distance`` ``[checkpoints, J]``, drawn as bands over the rates, and
        ``smoothness [checkpoints]``.
    """
    figure, axes = panels(1, 3, 10.5, 3.4)
    titles = ("(a) loss, nats", "(b) distance of gradients", "(c) effective smoothness")
    for k, (axis, title) in enumerate(zip(axes[0], titles, strict=True)):
        for i, (run, measures) in enumerate(found.items()):
            values = measures[k]
            if values.ndim == 2:
                low, high = values.min(axis=1), values.max(axis=1)
                axis.fill_between(iterations[run], low, high, color=COLOURS[i % len(COLOURS)], alpha=0.25, linewidth=0)
                values = values.mean(axis=1)
            axis.plot(iterations[run], values, **style(i))
        if k:
            plain_numbers(axis)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("outer iteration")
    legend(axes[0, 0], [(run, style(i)) for i, run in enumerate(found)], fontsize=8)
    return figure
