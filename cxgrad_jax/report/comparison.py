"""``python -m cxgrad_jax.compare --configs NAME[:PRESET] ... --workdir=DIR [--config.FIELD=VALUE ...]``

Trains, resumes or merely reads the run of every configuration in ``DIR/NAME``, one after the other, NAME being that of
the file (and ``-PRESET``), and writes ``DIR/comparison.md``, ``.csv`` and ``.tex``: test accuracies with both 95 %
intervals, differences from the first configuration on the same test episodes with a paired t-test, parameters, time and
memory of a training iteration, and the figure that the CxGrad paper prints. Overrides are for every configuration that
has the field.

Exit status as of ``cxgrad_jax.main``: 0 done, 2 a user's mistake, 130 interrupted (run again to go on), 1 a defect.
"""

import csv
import io
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cxgrad_jax import parallel, runtime
from cxgrad_jax.command_line import Parser, add_verbosity, exit_status
from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluation import paired
from cxgrad_jax.files import write_json
from cxgrad_jax.fitting import init_state
from cxgrad_jax.report.published import published
from cxgrad_jax.training import build, checks
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.config_files import config_name, load_config
from cxgrad_jax.training.overrides import override
from cxgrad_jax.training.train import train

# What the same test episodes need. The images that a learner saw before are part of it.
ALIKE = (
    "data.name", "evaluation.data", "episode.way", "episode.shot", "episode.query", "evaluation.episodes", "seed",
)  # fmt: skip
TIMED_DISPATCHES = 3

HEADINGS = {
    "name": "configuration",
    "test_accuracy": "accuracy %",
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


class Entry(NamedTuple):
    """One configuration of a comparison.

    Attributes:
      name: of its folder and row.
      config: with the overrides.
      workdir: of its run.
    """

    name: str
    config: ConfigDict
    workdir: Path


def parse(arguments: list[str]) -> tuple[list[Entry], Path]:
    """Reads the command line: the configurations with their overrides, and the folder of the comparison.

    Raises:
      UserError: as ``load_config`` and ``override``, or two configurations of one name.
    """
    flags = Parser(
        prog="python -m cxgrad_jax.compare",
        usage="%(prog)s --configs NAME[:PRESET] ... --workdir=DIR [--config.FIELD=VALUE ...]",
        description="Train or resume several configurations under one protocol, and write one table.",
        epilog="--config.FIELD=VALUE overrides a field of every configuration that has it.",
        allow_abbrev=False,
    )
    flags.add_argument(
        "--configs", nargs="+", metavar="NAME[:PRESET]", help="files or names; the first is compared with"
    )
    flags.add_argument("--workdir", type=Path, metavar="DIR", help="receives DIR/NAME and comparison.{md,csv,tex}")
    add_verbosity(flags)
    given, overrides = flags.parse_known_args(arguments)
    for flag in overrides:
        if not flag.startswith("--config.") or "=" not in flag:
            raise UserError(
                f"argument {flag.split('=')[0]} is unknown; expected --configs, --workdir, --config.FIELD=VALUE"
            )
    if not given.configs:
        raise UserError("--configs is missing; give those to compare, such as --configs mini_1shot maml_mini_1shot")
    if not given.workdir or not given.workdir.name:
        raise UserError("--workdir is missing; give the folder of the comparison, such as --workdir=runs/comparison")
    entries: list[Entry] = []
    known = {spec: {f"--config.{field}" for field in configuration.fields(load_config(spec))} for spec in given.configs}
    somewhere = set().union(*known.values())
    for spec in given.configs:
        file, name = spec.partition(":")[0], config_name(spec)
        if name in [entry.name for entry in entries]:
            raise UserError(f"--configs names {name} twice; each run needs a folder of its own")
        workdir = given.workdir / name
        try:
            elsewhere = somewhere - known[spec]
            for_this = [flag for flag in overrides if flag.split("=")[0] not in elsewhere]
            config = load_config(spec)
            override(config, for_this, Parser(add_help=False))
        except UserError as error:
            raise UserError(str(error) if file in str(error) else f"{spec}: {error}") from None
        entries.append(Entry(name, config, workdir))
    return entries, given.workdir


def check(entries: Sequence[Entry]) -> None:
    """Refuses, before anything is trained, what cannot run or cannot stand in one table.

    Raises:
      UserError: names the configuration and the field.
    """
    first = entries[0]
    for entry in entries:
        try:
            checks.check(entry.config)
            checks.check_parallel(entry.config)
        except UserError as error:
            raise UserError(f"{entry.name}: {error}") from None
        for field in ALIKE:
            ours, expected = (configuration.value_at(each.config, field) for each in (entry, first))
            if field == "evaluation.data":
                ours, expected = ours or entry.config.data.name, expected or first.config.data.name
            if ours != expected:
                raise UserError(
                    f"{field} is {ours!r} in {entry.name}, but {expected!r} in {first.name}; a comparison needs "
                    f"the same test episodes: give --config.{field}=VALUE for all"
                )
        if (entry.workdir / "config.json").exists():
            workdir_of.check_same_run(entry.config, entry.workdir, given=entry.workdir.parent)


def results_of(entry: Entry) -> dict[str, Any]:
    """The results of a configuration's run, which is trained or resumed if it is not done."""
    try:
        results = json.loads((entry.workdir / "results.json").read_text())
        if results["config"] == configuration.to_json(entry.config) and "episode_accuracies" in results:
            return results
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there or of an interrupted copy: made again
    print(f"{entry.name}: training in {entry.workdir}", file=sys.stderr)
    return train(entry.config, entry.workdir)


def costs_of(entry: Entry) -> dict[str, Any]:
    """What ``measure`` finds, kept in ``comparison.json`` of the run for the next time on the same kind of device."""
    path, device = entry.workdir / "comparison.json", jax.devices()[0].device_kind
    try:
        costs = json.loads(path.read_text())
        if costs["device"] == device and {*costs} >= {"num_parameters", "seconds_per_iteration", "memory_bytes"}:
            return costs
    except (OSError, ValueError, KeyError, TypeError):
        pass
    costs = {"device": device, **measure(entry.config)}
    write_json(path, costs)
    return costs


def measure(config: ConfigDict) -> dict[str, Any]:
    """Parameters, and time and memory of a training iteration whose episodes are at hand.

    Returns:
      ``"num_parameters"``; ``"seconds_per_iteration"``, the median of some calls of the compiled training program
      after a first one; ``"memory_bytes"`` of that program on all devices: its inputs, outputs and temporaries as the
      compiler tells, None where it does not. The store of images and validation are in neither.
    """
    store = build.load_stores(config, ("train",))["train"]
    mesh, per_dispatch = build.build_mesh(config), build.iterations_per_dispatch(config)
    learner, optimiser = build.build_learner(config), build.build_optimiser(config)
    source = build.build_source(config, store, mesh, "host")
    episodes = next(source.arrays([(0, per_dispatch)]))
    state = parallel.put(mesh, init_state(learner, optimiser, config.seed, np.asarray(store.images[:2])))
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    program = build.build_program(config, learner, optimiser, mesh, source, per_dispatch)
    program = program.lower(state, episodes).compile()
    state, _ = jax.block_until_ready(program(state, episodes))
    seconds = []
    for _ in range(TIMED_DISPATCHES):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program(state, episodes))
        seconds.append((time.perf_counter() - start) / per_dispatch)
    memory = program.memory_analysis()
    return {
        "num_parameters": num_parameters,
        "seconds_per_iteration": statistics.median(seconds),
        "memory_bytes": memory and mesh.size * (
            memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        ),
        "num_devices": mesh.size,
    }  # fmt: skip


def table(entries: Sequence[Entry], results: Sequence[dict], costs: Sequence[dict]) -> list[dict[str, Any]]:
    """One dict a configuration, with the numbers of all columns; None where there is none."""
    rows = []
    for entry, result, cost in zip(entries, results, costs, strict=True):
        row = {"name": entry.name, "learner": entry.config.learner.name}
        row |= {name: result[name] for name in ("test_accuracy", "test_ci95_tasks", "test_ci95_pooled")}
        comparison = paired(result["episode_accuracies"], results[0]["episode_accuracies"])
        row |= comparison if rows else dict.fromkeys(comparison)
        row |= {name: cost[name] for name in ("num_parameters", "seconds_per_iteration", "memory_bytes", "device")}
        row |= {"iterations": result["iterations"], "meta_batch": entry.config.train.meta_batch}
        row |= {"ensemble_size": result["ensemble_size"]}
        row |= dict(zip(("published", "published_ci95"), published(entry.config) or (None, None), strict=True))
        rows.append(row)
    return rows


def cells(row: dict[str, Any]) -> list[str]:
    """A row as the tables for readers show it, in the order of ``HEADINGS``."""

    def percent(name, sign=""):
        return f"{100 * row[name]:{sign}.2f}"

    shown: dict[str, Callable[[], str]] = {
        "test_accuracy": lambda: percent("test_accuracy"),
        "test_ci95_tasks": lambda: percent("test_ci95_tasks"),
        "test_ci95_pooled": lambda: percent("test_ci95_pooled"),
        "difference": lambda: f"{percent('difference', '+')} ± {percent('difference_ci95')}",
        "p_value": lambda: "< 0.0001" if row["p_value"] < 1e-4 else f"{row['p_value']:.4f}",
        "num_parameters": lambda: f"{row['num_parameters']:,}",
        "seconds_per_iteration": lambda: f"{row['seconds_per_iteration']:.3g}",
        "memory_bytes": lambda: f"{math.ceil(row['memory_bytes'] / 2**20):,}",
        "iterations": lambda: f"{row['iterations']:,}",
        "published": lambda: percent_with(row["published"], row["published_ci95"]),
    }
    return ["–" if row[name] is None else shown.get(name, lambda name=name: str(row[name]))() for name in HEADINGS]


def percent_with(value: float, interval: float | None) -> str:
    """Such as "51.80 ± 0.46", without ± where there is none."""
    return f"{value:.2f}" if interval is None else f"{value:.2f} ± {interval:.2f}"


def caption(entries: Sequence[Entry], rows: Sequence[dict[str, Any]]) -> str:
    """What a reader must know of the numbers."""
    config = entries[0].config
    devices = ", ".join(dict.fromkeys(row["device"] for row in rows))
    return (
        f"{config.evaluation.data or config.data.name}, {config.episode.way}-way {config.episode.shot}-shot, "
        f"{config.episode.query} query images a class, trained on {config.data.name}; {config.evaluation.episodes} "
        f"test episodes of seed {config.seed}, the same in all rows. ± tasks: 95 % interval over episodes; ± pooled: "
        f"binomial over all predictions, as the CxGrad paper prints it. difference: from {entries[0].name} on the same "
        "episodes, with its 95 % interval; p: paired t-test, two-sided. tasks: of an iteration. Time and memory: of "
        f"the first training iterations, compiled, on {devices}. published: the figure that the CxGrad paper prints, "
        "obtained under other conditions and not measured here."
    )


def as_markdown(entries: Sequence[Entry], rows: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = [list(HEADINGS.values()), [":--", *["--:"] * (len(HEADINGS) - 1)], *map(cells, rows)]
    return caption(entries, rows) + "\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The table in CSV: unrounded, accuracies as shares in [0, 1], the published figures in per cent."""
    text = io.StringIO()
    names = {"published": "published_percent", "published_ci95": "published_ci95_percent"}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([names.get(name, name) for name in rows[0]])
    writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    return text.getvalue()


def as_latex(entries: Sequence[Entry], rows: Sequence[dict[str, Any]]) -> str:
    """The table in LaTeX."""
    return latex_table(caption(entries, rows), [list(HEADINGS.values()), *map(cells, rows)])


def latex_table(caption: str, lines: Sequence[Sequence[str]]) -> str:
    """``lines`` of cells, the first the headings, in LaTeX for the package booktabs; the caption as a comment."""

    def line(texts):
        return " & ".join(map(_latex, texts)) + r" \\"

    return "\n".join([
        "% " + caption,
        rf"\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}",
        r"\toprule", line(lines[0]), r"\midrule", *map(line, lines[1:]), r"\bottomrule",
        r"\end{tabular}", "",
    ])  # fmt: skip


def _latex(text: str) -> str:
    for plain, markup in (("_", r"\_"), ("%", r"\%"), ("±", r"$\pm$"), ("< ", r"$<$ "), ("–", "--")):
        text = text.replace(plain, markup)
    return text


def compare(entries: Sequence[Entry], workdir: Path) -> str:
    """Makes what is missing of the runs, writes the three tables, and returns the one in Markdown.

    Raises:
      UserError: as ``check`` and ``train``.
      Interrupted: a run was asked to stop; its state was saved.
    """
    check(entries)
    results, costs = [], []
    for entry in entries:
        results.append(results_of(entry))
        costs.append(costs_of(entry))
    rows = table(entries, results, costs)
    markdown = as_markdown(entries, rows)
    (workdir / "comparison.md").write_text(markdown)
    (workdir / "comparison.csv").write_text(as_csv(rows))
    (workdir / "comparison.tex").write_text(as_latex(entries, rows))
    return markdown


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        entries, workdir = parse(arguments)
        runtime.use_cores_as_devices()
        print(compare(entries, workdir), end="")

    return exit_status(action)
