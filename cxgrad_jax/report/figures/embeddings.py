"""Figure 4: the features of one test episode before and after adaptation, in a plane (t-SNE)."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from cxgrad_jax import analysis
from cxgrad_jax.report.figures.style import legend, panels, plain, point_style, save
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.study import Study, adapting, of_one_task, remarks, sampler_of, write_numbers

TITLE = "Features of the last block before and after adaptation (Figure 4)"


class Planes(NamedTuple):
    """An episode of one data set.

    Attributes:
      classes: their names, by label.
      labels: the labels of the query images, ``[N]``.
      points: for each run, ``[N, 2]`` before and after adaptation.
    """

    classes: Sequence[str]
    labels: np.ndarray
    points: dict[str, tuple[np.ndarray, np.ndarray]]


def sections(study: Study) -> list[Section]:
    index, perplexity = study.options.embedding_episode, study.options.perplexity
    seed = study.runs[0].config.evaluation.seed
    stores = {data: store for (data, split), store in study.stores.items() if split == "test"}
    found = {}
    for name, store in stores.items():
        sampler = sampler_of(study, store)
        episode = sampler(index)
        found[name] = Planes(sampler.class_names(index), episode.query_labels, {})
        for run in tqdm(adapting(study), desc=f"t-SNE, {name}", unit="run"):
            first, last = of_one_task(run, analysis.embeddings, run.restore(run.best), episode)
            points = analysis.joint_tsne(np.asarray(first), np.asarray(last), perplexity, seed)
            found[name].points[run.name] = points
    lines = (
        (name, run, when, i, classes[label], *point)
        for name, (classes, labels, of_runs) in found.items()
        for run, halves in of_runs.items()
        for when, half in zip(("before", "after"), halves, strict=True)
        for i, (label, point) in enumerate(zip(labels, half, strict=True))
    )
    write_numbers(study, "embeddings", ("data", "run", "when", "query_image", "class", "x", "y"), lines)
    caption = [
        "t-SNE of what the head receives of the query images of test episode "
        f"{index}, before and after adaptation. Both are fitted together (scikit-learn, perplexity {perplexity:g}, "
        f"seed {seed}, start by PCA), so that the two panels of a run share a plane. Different runs do not share one. "
        f"A colour and marker is a class. Rows: {', '.join(stores)}.",
    ]
    return [Section(TITLE, save(picture(found), study.folder, "embeddings"), caption + remarks(study))]


def picture(found: Mapping[str, Planes]) -> Figure:
    """A row for each data set, two panels for each run (before and after adaptation), and a marker for each class."""
    runs = list(next(iter(found.values())).points)
    figure, axes = panels(len(found), 2 * len(runs), 2.3 * 2 * len(runs) + 1.2, 2.4 * len(found) + 0.3)
    for line, (data, (classes, labels, points)) in zip(axes, found.items(), strict=True):
        for j, run in enumerate(runs):
            both = np.concatenate(points[run])
            margin = 0.05 * (both.max(axis=0) - both.min(axis=0))
            low, high = both.min(axis=0) - margin, both.max(axis=0) + margin
            for axis, half, when in zip(line[2 * j : 2 * j + 2], points[run], ("before", "after"), strict=True):
                for c in range(len(classes)):
                    axis.scatter(*half[labels == c].T, s=14, **point_style(c))
                axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
                axis.grid(False)
                axis.set_title(plain(f"{run}, {when}"), fontsize=9)
        line[0].set_ylabel(plain(data))
        names = [textwrap.fill(name.replace("_", " "), 22) for name in classes]
        items = [(name, {**point_style(c), "linestyle": ""}) for c, name in enumerate(names)]
        legend(line[-1], items, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
