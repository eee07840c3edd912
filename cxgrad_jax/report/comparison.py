"""Several configurations under one protocol, in one table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxgrad_jax.errors import UserError
from cxgrad_jax.files import csv_text
from cxgrad_jax.report.alike import check_alike
from cxgrad_jax.report.published import METHODS, WHAT_THEY_SEE, as_printed, comparable_number
from cxgrad_jax.report.results import Planned, check_all, costs_of, planned, results_of
from cxgrad_jax.report.seeds import paired_over_seeds, summary
from cxgrad_jax.report.tables import (
    MISSING,
    by_kind,
    latex_table,
    markdown_table,
    p_value,
    paper_table,
    percent,
    percent_with,
    write_tables,
)
from cxgrad_jax.training.build import is_pretraining
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.transductive import is_transductive

# Runs with the same test episodes agree in these fields. The training images are among them.
SAME_TEST = (
    "data.name", "evaluation.data", "episode.way", "episode.shot", "episode.query", "evaluation.episodes",
    "evaluation.seed",
)  # fmt: skip

HEADINGS = {
    "name": "configuration",
    "test_accuracy": "accuracy %",
    "std_seeds": "sd seeds",
    "ci95_seeds": "± seeds",
    "test_ci95_tasks": "± tasks",
    "test_ci95_pooled": "± pooled",
    "difference": "difference",
    "p_value": "p",
    "num_parameters": "parameters",
    "seconds_per_iteration": "s/iteration",
    "memory_bytes": "memory MiB",
    "iterations": "iterations",
    "meta_batch": "tasks",
    "ensemble_size": "ensemble",
    "published": "published",
}
OVER_SEEDS = ("std_seeds", "ci95_seeds")  # columns that need several seeds


def compare(configs: Mapping[str, ConfigDict], workdir: Path, *, seeds: int | None = None, wide: bool = False) -> str:
    """Makes what is missing of the runs, writes the table in three forms, and returns the one in Markdown.

    Transductive and inductive configurations have separate tables. In CSV they are in one table, with a column that
    says which they are.

    Args:
      configs: the configurations by name. The others of a table are compared with its first.
      workdir: the folder that receives the runs in ``NAME``, and ``comparison.md``, ``.csv`` and ``.tex``.
      seeds: the number of runs of each, in ``NAME/seed_0``, ``NAME/seed_1``, …. None means one run, with the
        configuration's seed.
      wide: whether the LaTeX table has all columns, and not only method and accuracy.

    Raises:
      UserError: a configuration cannot run or cannot stand in one table, which is found before anything is trained; or
        ``train`` raises it.
      Interrupted: a run was asked to stop, and its state was saved.
    """
    check_comparable(configs)
    runs = {name: planned(name, config, workdir / name, seeds) for name, config in configs.items()}
    check_all(((run, "") for own_runs in runs.values() for run in own_runs), workdir)
    results, costs = {}, {}
    for name, own_runs in runs.items():
        results[name] = [results_of(run) for run in own_runs]
        costs[name] = costs_of(own_runs[0])
    kinds = {
        kind: table({name: runs[name] for name in names}, results, costs) for kind, names in by_kind(configs).items()
    }
    rows = [row for kind_rows in kinds.values() for row in kind_rows]
    text, names = caption(configs, rows), [name for name in HEADINGS if (seeds or 1) > 1 or name not in OVER_SEEDS]
    markdown, latex = text + "\n", []
    for kind, kind_rows in kinds.items():
        lines = [[HEADINGS[name] for name in names], *([cell(row, name) for name in names] for row in kind_rows)]
        markdown += f"\n{kind}\n\n{markdown_table(lines)}"
        latex.append(latex_table(lines, [text, kind]) if wide else narrow(configs, kind_rows, kind))
    write_tables(workdir, "comparison", md=markdown, csv=as_csv(rows), tex="\n".join(latex))
    return markdown


def check_comparable(configs: Mapping[str, ConfigDict]) -> None:
    """Refuses configurations that cannot stand in one table.

    Raises:
      UserError: one is a pre-training, or two have different test episodes. The line names it, or both and the field.
    """
    for name, config in configs.items():
        if is_pretraining(config):
            raise UserError(f"{name} is a pre-training and not a learner to compare; leave it out")
    advice = "a comparison needs the same test episodes: give --config.{field}=VALUE for all"
    check_alike(configs, SAME_TEST, advice)


def table(
    runs: Mapping[str, Sequence[Planned]],
    results: Mapping[str, Sequence[dict[str, Any]]],
    costs: Mapping[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """One dict for each configuration of ``runs``, with the numbers of all columns. None means that there is none."""
    rows = []
    first = episode_accuracies(results[next(iter(runs))])
    for name, own_runs in runs.items():
        config, found = own_runs[0].config, summary(results[name])
        comparison = paired_over_seeds(episode_accuracies(results[name]), first)
        rows.append({
            "name": name, "learner": config.learner.name, "transductive": is_transductive(config),
            "num_seeds": len(own_runs), "test_accuracy": found.accuracy, "std_seeds": found.std_seeds,
            "ci95_seeds": found.ci95_seeds, "test_ci95_tasks": found.ci95_tasks,
            "test_ci95_pooled": found.ci95_pooled, **(comparison if rows else dict.fromkeys(comparison)),
            **{key: costs[name][key] for key in ("num_parameters", "seconds_per_iteration", "memory_bytes", "device")},
            "iterations": results[name][0]["iterations"], "meta_batch": config.train.meta_batch,
            "ensemble_size": results[name][0]["ensemble_size"],
            **dict(zip(("published", "published_ci95"), comparable_number(config) or (None, None), strict=True)),
        })  # fmt: skip
    return rows


def episode_accuracies(results: Sequence[dict[str, Any]]) -> np.ndarray:
    """Accuracies ``[seeds, episodes]`` of the test episodes."""
    return np.asarray([each["episode_accuracies"] for each in results])


def cell(row: dict[str, Any], name: str) -> str:
    """A number in the form of the tables for readers."""
    value = row[name]
    if value is None:
        return MISSING
    if name in ("test_accuracy", "test_ci95_tasks", "test_ci95_pooled", *OVER_SEEDS):
        return percent(value)
    if name == "difference":
        return percent_with(value, row["difference_ci95"], "+.2f")
    if name == "p_value":
        return p_value(value)
    if name == "seconds_per_iteration":
        return f"{value:.3g}"
    if name == "memory_bytes":
        return f"{math.ceil(value / 2**20):,}"
    if name == "published":
        return as_printed((value, row["published_ci95"]))
    return f"{value:,}" if name in ("num_parameters", "iterations") else str(value)


def setting(config: ConfigDict) -> str:
    """The data and the episodes of a comparison."""
    return (
        f"{config.evaluation.data or config.data.name}, {config.episode.way}-way {config.episode.shot}-shot, "
        f"{config.episode.query} query images a class, trained on {config.data.name}; {config.evaluation.episodes} "
        f"test episodes of seed {config.evaluation.seed}, the same in all rows."
    )


def caption(configs: Mapping[str, ConfigDict], rows: Sequence[dict[str, Any]]) -> str:
    """What a reader must know of the numbers."""
    first, devices = rows[0], ", ".join(dict.fromkeys(row["device"] for row in rows))
    seeds, over, test = "", "", "a paired t-test"
    if first["num_seeds"] > 1:
        seeds = (
            f"accuracy: mean over {first['num_seeds']} training seeds (0 to {first['num_seeds'] - 1}). sd seeds: "
            "standard deviation over the seeds. ± seeds: 95 % t-interval of the mean over seeds. "
        )
        over, test = ", mean over the seeds", "with seeds and episodes as random factors"
    return (
        f"{setting(configs[first['name']])} {seeds}± tasks: 95 % interval over episodes{over}. ± pooled: binomial over "
        f"all predictions of a run, as the CxGrad paper prints it{over}. difference: from the first row in "
        f"percentage points on the same episodes, with its 95 % interval; p: two-sided, {test}. tasks: of an "
        f"iteration. Time and memory: of the first training iterations, compiled, on {devices}. published: the number "
        "that the CxGrad paper prints for this model, data and iterations, obtained under other conditions and not "
        f"measured here. {WHAT_THEY_SEE}"
    )


def narrow(configs: Mapping[str, ConfigDict], rows: Sequence[dict[str, Any]], kind: str) -> str:
    """The table of a paper in LaTeX, with method and accuracy. ``kind`` is its key in ``by_kind``."""
    several = rows[0]["num_seeds"] > 1
    interval = "ci95_seeds" if several else "test_ci95_tasks"
    means = f"95 % t-interval over {rows[0]['num_seeds']} training seeds" if several else "95 % interval over episodes"
    note = f"{setting(configs[rows[0]['name']])} Accuracy in %, ±: {means}. Bold: the best mean."
    cells = [(METHODS.get(str(row["name"]), str(row["name"])), [(row["test_accuracy"], row[interval])]) for row in rows]
    return paper_table(["method", f"{configs[rows[0]['name']].episode.shot}-shot"], cells, [note, kind])


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The table in CSV, not rounded. Accuracies are shares in [0, 1]; the published numbers are in per cent."""
    names = {"published": "published_percent", "published_ci95": "published_ci95_percent"}
    return csv_text([names.get(name, name) for name in rows[0]], (list(row.values()) for row in rows))
