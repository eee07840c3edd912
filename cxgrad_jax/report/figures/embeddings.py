"""Figure 4: the features of one test episode before and after adaptation, in a plane (t-SNE)."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from cxgrad_jax import analysis
from cxgrad_jax.report.figures.measured import measured
from cxgrad_jax.report.figures.style import forget, legend, panels, plain, point_style, save
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.study import Study, adapting, on_one_episode, remarks, sampler_of, write_numbers

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
    found, missing = {}, []
    for name, store in stores.items():
        sampler = sampler_of(study, store)
        episode = sampler(index)

        def plane(run, episode=episode):
            first, last = on_one_episode(run, analysis.embeddings, run.restore(run.best), episode)
            return analysis.joint_tsne(np.asarray(first), np.asarray(last), perplexity, seed)

        points, why = measured(tqdm(adapting(study), desc=f"t-SNE, {name}", unit="run"), plane, f" on {name}")
        found[name], missing = Planes(sampler.class_names(index), episode.query_labels, points), missing + why
    if not any(planes.points for planes in found.values()):
        forget(study.folder, "embeddings")
        return [Section(TITLE, None, missing + remarks(study))]
    lines = (
        (name, run, when, i, classes[label], *place)
        for name, (classes, labels, points) in found.items()
        for run, halves in points.items()
        for when, half in zip(("before", "after"), halves, strict=True)
        for i, (label, place) in enumerate(zip(labels, half, strict=True))
    )
    write_numbers(study, "embeddings", ("data", "run", "when", "query_image", "class", "x", "y"), lines)
    caption = [
        "t-SNE of what the head receives of the query images of test episode "
        f"{index}, before and after adaptation. Both are fitted together (scikit-learn, perplexity {perplexity:g}, "
        f"seed {seed}, start by PCA), so that the two panels of a run share a plane. Different runs do not share one. "
        f"A colour and marker is a class. Rows: {', '.join(stores)}.",
    ]
    image = save(draw(found), study.folder, "embeddings")
    return [Section(TITLE, image, caption + missing + remarks(study))]


def draw(found: Mapping[str, Planes]) -> Figure:
    """Draws a row for each data set, two panels for each run (before, after adaptation), and a marker for each class.

    A run that has no points of a data set has empty panels there.
    """
    runs = list(dict.fromkeys(run for planes in found.values() for run in planes.points))
    names = {
        data: [textwrap.fill(name.replace("_", " "), 22) for name in planes.classes] for data, planes in found.items()
    }
    # About 14 lines of a legend are as high as a row.
    columns = {data: math.ceil("\n".join(classes).count("\n") / 14) or 1 for data, classes in names.items()}
    width = 2.3 * 2 * len(runs) + 1.5 * max(columns.values())
    figure, axes = panels(len(found), 2 * len(runs), width, 2.4 * len(found) + 0.3)
    for line, (data, (classes, labels, points)) in zip(axes, found.items(), strict=True):
        for j, run in enumerate(runs):
            pair = line[2 * j : 2 * j + 2]
            for axis, when in zip(pair, ("before", "after"), strict=True):
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
                axis.set_title(plain(f"{run}, {when}"), fontsize=9)
            if run not in points:
                continue
            both = np.concatenate(points[run])
            margin = 0.05 * (both.max(axis=0) - both.min(axis=0))
            low, high = both.min(axis=0) - margin, both.max(axis=0) + margin
            for axis, half in zip(pair, points[run], strict=True):
                for c in range(len(classes)):
                    axis.scatter(*half[labels == c].T, s=14, **point_style(c))
                axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        line[0].set_ylabel(plain(data))
        items = [(name, {**point_style(c), "linestyle": ""}) for c, name in enumerate(names[data])]
        options = {"ncols": columns[data], "fontsize": 7, "columnspacing": 1}
        legend(line[-1], items, loc="center left", bbox_to_anchor=(1.0, 0.5), **options)
    return figure
