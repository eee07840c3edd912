"""Writes docs/results.md from docs/results.json, to which it adds the tests of finished runs.

python docs/results.py                                  docs/results.md anew
python docs/results.py --commit=COMMIT RUN [RUN …]      with every results.json in the folders RUN; all were trained at
                                                        this commit

Each line of docs/results.json is one run: its setting, its validations, and how many query images of each test episode
were named rightly. All accuracies, intervals and differences of the page are computed from these.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluation import ci95_pooled, ci95_tasks
from cxgrad_jax.files import write_whole
from cxgrad_jax.report.results import answers_at_hand, results_at_hand
from cxgrad_jax.report.seeds import paired_over_seeds, summary
from cxgrad_jax.report.tables import INDUCTIVE, MISSING, TRANSDUCTIVE, markdown_table, p_value, percent, percent_with
from cxgrad_jax.training.build import is_pretraining
from cxgrad_jax.training.config import ConfigDict, learner_config
from cxgrad_jax.training.config_files import command_of
from cxgrad_jax.training.metrics_file import read_metrics
from cxgrad_jax.training.transductive import is_transductive
from cxgrad_jax.training.workdir import read_config

DOCS = Path(__file__).parent
Record = dict[str, Any]
# Runs that differ in nothing of this are seeds of one row.
SETTING = (
    "data",
    "model",
    "way",
    "shot",
    "learner",
    "start",
    "iterations",
    "tasks",
    "query_statistics",
    "transductive",
)
# Columns of the further questions: a heading, and the name of the answer.
ANSWERS = {
    "0 steps": "after 0 inner steps",
    "1": "after 1 inner steps",
    "5": "after 5 inner steps",
    "10": "after 10 inner steps",
    "20": "after 20 inner steps",
    "head only": "head adapted",
    "body only": "body adapted",
    "orders: mean": "mean over the orders",
    "best": "best order",
    "worst": "worst order",
}
QUESTIONS = ("inner_steps", "parts", "permutations")
ASKED = """The answers of `cxgrad evaluate --question=…` ({doc}`how_to/questions`), accuracy % ± tasks. They are of one
checkpoint, the best in validation, whose accuracy in the run's own test is *alone*; *ensemble* is the test of up to
five. *Steps* are inner steps in the test. *Head only* and *body only* adapt nothing else. These are over 600 episodes
in 1-shot, and over the first 200 of them in 5-shot. *Orders* are the 120 orders of five classes, in 100 episodes in
1-shot and in the first 20 in 5-shot: the mean, and the best and the worst order of each episode.

"""
# Of L. Bertinetto et al., ICLR 2019, CIFAR-FS, 64 filters; in brackets, as others reproduced it. 1-shot and 5-shot, %.
PUBLISHED = {"maml": ("58.9 (56.8)", "71.5 (70.8)"), "proto_net": ("55.5", "72.0"), "r2d2": ("62.3", "77.4")}

HEAD = """# Results on CIFAR-FS

Test accuracy on the test classes of CIFAR-FS. The test of a run is 600 episodes of seed 0, the same for all, with 15
query images a class. The logits of up to five checkpoints, those best in validation, are averaged.

- *± tasks* is the 95 % interval over the episodes, *± seeds* the 95 % t-interval over training seeds.
- *against `query`* compares an inductive learner with itself transductive.
- *start* is the run or the weights whose body the learner started from, as *Commands* names it.
- *validation* is the accuracy on validation classes halfway through the training and at its end, in the first seed.
- *published* is what L. Bertinetto et al. (ICLR 2019) print, with 64 filters and under conditions of their own. In
  brackets stands what others reached with the same method. The column does not say what a prediction saw there, and
  stands in the tables of both kinds.

The CxGrad paper trains for 50,000 iterations. A run with fewer is not finished: a number below a published one says
first of all that.

**A fault in earlier trainings.** Until commit `4f786d5fa4` a training on two cores of a CPU had a device for each. XLA
computes wrongly in a program that two such devices run for more than about a second ({doc}`trust`), so that the last of
each five iterations may have gone wrong. No number below has the fault: what had it was trained again, with one device.
With the fault, and in part on another machine, the same commands gave in 1-shot, transductive:

| learner | start | iterations | seeds | accuracy %, with the fault |
| :-- | --: | --: | --: | --: |
| `cxgrad` | scratch | 15,000 | 1 | 59.17 ± 0.96, ± tasks (the fault after iteration 6,950) |
| `cxgrad` | scratch | 2,000 | 3 | 42.23 ± 3.72, ± seeds |
| `maml` | scratch | 2,000 | 3 | 43.02 ± 1.27, ± seeds |
| `cxgrad` | pretrain_18k | 2,000 | 1 | 54.46 ± 0.89, ± tasks |
| `maml` | pretrain_18k | 2,000 | 1 | 52.76 ± 0.92, ± tasks |
| `proto_net` | scratch | 2,000 | 1 | 45.98 ± 0.87, ± tasks |
| `r2d2` | scratch | 2,000 | 1 | 52.22 ± 0.91, ± tasks |

`cifar_fs_1shot_15k` ran on an H100 for 7,700 iterations (6,950 at commit 0400e3d), and then on two CPU cores as one
device. `cifar_fs_5shot_15k`, `maml_cifar_fs_5shot_15k` and `pretrain_resnet12_18k` ran on one H100, all three at once,
in 416, 400 and 308 seconds (jax 0.11.2). `classifier_baseline_cifar_fs` are the weights of `pretrain_18k`, which this
project gives away. The 5-shot runs of CxGrad and MAML from these weights followed on that card. Their seeds differ, so
no difference between the two is given.

On CPUs, the transductive 5-shot trainings of seed 0 had two cores, and those of seeds 1 and 2 one core each, which
rounds differently. Inductive trainings in episodes, 1-shot trainings from a pre-trained body, ProtoNet and R2-D2 had
one core each, and `maml_cifar_fs_1shot_15k` two.

`python docs/results.py` writes this page from `docs/results.json`, which has every episode of every run.
"""
TAIL = """
## Figures, and older runs

```{toctree}
:maxdepth: 1

figures_5shot
cifar_fs
```
"""


def record(folder: Path, name: str, commit: str) -> Record:
    """What the page needs of a finished run.

    Raises:
      UserError: the run is not finished or damaged.
    """
    config, results = read_config(folder), results_at_hand(folder)
    if not results or results["iterations"] != config.train.iterations:
        raise UserError(f"{folder} is not finished")
    episode, queries = config.episode, config.episode.way * config.episode.query
    pretraining = is_pretraining(config)
    validations = [each for each in read_metrics(folder / "metrics.jsonl") if "val_accuracy" in each]
    return {
        "run": name,
        "commit": commit,
        "command": command_of(config),
        "data": f"{config.data.name} {config.data.image_size}×{config.data.image_size}",
        "model": model_name(config),
        "way": episode.way,
        "shot": episode.shot,
        "learner": learner_name(config),
        "start": "pre-training" if pretraining else Path(config.train.start_from).name,
        "iterations": config.train.iterations,
        "tasks": config.pretrain.batch_size if pretraining else config.train.meta_batch,
        "query_statistics": results["query_statistics"],
        "transductive": is_transductive(config),
        "seed": config.seed,
        "checkpoints": results["ensemble_size"],
        "validations": [[each["iteration"], round(each["val_accuracy"], 4)] for each in validations],
        "queries": queries,
        "alone": results["single_model_test_accuracy"],
        "answers": {
            name: [answer["test_accuracy"], answer["test_ci95_tasks"]]
            for question in QUESTIONS
            for name, answer in answers_at_hand(folder, question).items()
            if name in ANSWERS.values()
        },
        "right": np.rint(np.asarray(results["episode_accuracies"]) * queries).astype(int).tolist(),
    }


def model_name(config: ConfigDict) -> str:
    """Such as "conv4 48"."""
    width = config.model.get("features") or config.model.get("channels")
    return f"{config.model.name} {width}"


def learner_name(config: ConfigDict) -> str:
    """The learner and the hyper-parameters that are not its defaults, without what a table tells elsewhere."""
    defaults = learner_config(config.learner.name)
    changes = [
        f"{name}={value}"
        for name, value in config.learner.items()
        if name not in ("name", "query_statistics", "remat") and value != defaults[name]
    ]
    return ", ".join([config.learner.name, *changes])


def page(records: Sequence[Record]) -> str:
    """docs/results.md."""
    rows: dict[tuple[Any, ...], list[Record]] = {}
    for each in sorted(records, key=lambda each: (each["shot"], each["learner"], each["start"], each["seed"])):
        rows.setdefault(tuple(each[name] for name in SETTING), []).append(each)
    text = HEAD
    for data, model in sorted({(each["data"], each["model"]) for each in records}):
        here = {key: seeds for key, seeds in rows.items() if key[:2] == (data, model)}
        text += f"\n## {data}, {model}\n"
        for kind in (INDUCTIVE, TRANSDUCTIVE):
            of_kind = [seeds for seeds in here.values() if seeds[0]["transductive"] == (kind == TRANSDUCTIVE)]
            if of_kind:
                name, _, meaning = kind.partition(": ")
                text += f"\n### {name}\n\n{meaning[0].upper()}{meaning[1:]}\n\n{accuracies(of_kind)}"
        if pairs := differences(here):
            text += f"\n### Differences on the same episodes\n\n{pairs}"
        if asked := [each for seeds in here.values() for each in seeds if each.get("answers")]:
            text += f"\n### What adaptation does\n\n{ASKED}{answers(asked)}"
    return f"{text}\n## Commands\n\n{commands(records)}{TAIL}"


def commands(records: Sequence[Record]) -> str:
    """A line a run: its name, the commit that it was trained at, and its command, with a folder of its name."""
    lines = [["run", "commit", "command"]]
    lines += [
        [each["run"], f"`{each['commit']}`", f"`{each['command']} --workdir=runs/{each['run']}`"] for each in records
    ]
    return markdown_table(lines)


def accuracies(rows: Sequence[Sequence[Record]]) -> str:
    """A line a setting."""
    lines = [[
        "shot", "learner", "start", "iterations × tasks", "query statistics", "seeds", "accuracy %", "± tasks",
        "± seeds", "validation %", "published %",
    ]]  # fmt: skip
    for seeds in rows:
        first, found = seeds[0], summary([accuracy(each) for each in seeds])
        curve = dict(map(tuple, first["validations"])) or {0: None}
        half = min(curve, key=lambda iteration: abs(iteration - first["iterations"] / 2))
        validation = (
            MISSING if len(curve) < 2 else f"{percent(curve[half], '.1f')} → {percent(curve[max(curve)], '.1f')}"
        )
        budget = f"{first['iterations']:,} × {first['tasks']}"
        lines.append([
            str(first["shot"]), f"`{first['learner']}`", first["start"] or "scratch",
            budget + " images" * (first["start"] == "pre-training") if first["iterations"] else "0",
            first["query_statistics"], str(len(seeds)), percent(found.accuracy), percent(found.ci95_tasks),
            percent(found.ci95_seeds), validation, published(first),
        ])  # fmt: skip
    return markdown_table(lines)


def answers(records: Sequence[Record]) -> str:
    """A line a run that was asked further questions."""
    lines = [["run", "ensemble", "alone", *ANSWERS]]
    for each in records:
        found = [percent_with(*each["answers"].get(name, (None, None))) for name in ANSWERS.values()]
        tested = accuracy(each)
        ensemble = percent_with(tested["test_accuracy"], tested["test_ci95_tasks"])
        lines.append([each["run"], ensemble, percent(each["alone"]), *found])
    return markdown_table(lines)


def accuracy(each: Record) -> dict[str, float]:
    """As a ``results.json`` has it."""
    of_episodes = shares(each)
    mean = float(of_episodes.mean())
    pooled = ci95_pooled(mean, of_episodes.size * each["queries"])
    intervals = {"test_ci95_tasks": ci95_tasks(of_episodes), "test_ci95_pooled": pooled}
    return {"test_accuracy": mean, **intervals, "num_tasks": of_episodes.size}


def shares(each: Record) -> np.ndarray:
    """The accuracy of each episode."""
    return np.asarray(each["right"]) / each["queries"]


def published(each: Record) -> str:
    """The number of the method's paper, for a run from scratch of the learner as it is."""
    known = PUBLISHED.get(each["learner"], ()) if each["data"].startswith("cifar_fs") and each["way"] == 5 else ()
    return dict(zip((1, 5), known, strict=False)).get(each["shot"], MISSING) if not each["start"] else MISSING


def differences(rows: Mapping[tuple[Any, ...], Sequence[Record]]) -> str:
    """Differences on the same episodes, where there are both sides.

    They are CxGrad's relatives against MAML from the same start, each learner from a body against itself from scratch,
    and each inductive learner against itself transductive.
    """
    lines = [["shot", "difference", "query statistics", "iterations", "seeds", "percentage points", "p"]]
    for key, ours in rows.items():
        setting = dict(zip(SETTING, key, strict=True))
        others = [
            ("`maml`", {"learner": "maml"}, setting["learner"].startswith("cxgrad")),
            ("scratch", {"start": ""}, bool(setting["start"])),
            ("`query`", {"query_statistics": "query", "transductive": True}, setting["query_statistics"] == "support"),
        ]
        for other, changes, wanted in others:
            theirs = rows.get(tuple({**setting, **changes}.values())) if wanted else None
            seeds = sorted({each["seed"] for each in ours} & {each["seed"] for each in theirs or ()})
            if not theirs or not seeds:
                continue
            both = [
                np.stack([shares(each) for seed in seeds for each in side if each["seed"] == seed])
                for side in (ours, theirs)
            ]
            found, start = paired_over_seeds(*both), setting["start"] or "scratch"
            lines.append([
                str(setting["shot"]), f"`{setting['learner']}`, {start}, against {other}", setting["query_statistics"],
                f"{setting['iterations']:,}", str(len(seeds)),
                percent_with(found["difference"], found["difference_ci95"], "+.2f"), p_value(found["p_value"]),
            ])  # fmt: skip
    return markdown_table(lines) if len(lines) > 1 else ""


def read(path: Path) -> dict[str, Record]:
    """The records by the name of their run."""
    return {each["run"]: each for each in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def main(arguments: Sequence[str] | None = None, docs: Path = DOCS) -> None:
    """Adds runs and writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="a folder with a results.json, or with some")
    parser.add_argument("--commit", help="at which the runs were trained")
    given = parser.parse_args(arguments)
    if given.runs and not re.fullmatch("[0-9a-f]{7,40}", given.commit or ""):
        parser.error("--commit must name the commit of the runs, such as --commit=6af4c94e3f")
    records, added = read(docs / "results.json"), set()
    for run in given.runs:
        found = sorted(path.parent for path in run.rglob("results.json"))
        if not found:
            parser.error(f"{run} has no results.json; expected the folder of a finished run, or of several")
        for folder in found:
            name = folder.relative_to(run.parent).as_posix()
            if name in added:
                parser.error(f"two of the runs are called {name}; give the folder above them instead")
            added.add(name)
            try:
                records[name] = record(folder, name, given.commit)
            except UserError as error:
                parser.error(str(error))
    ordered = [records[name] for name in sorted(records)]
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in ordered)
    write_whole(docs / "results.json", f"[\n{lines}\n]\n" if lines else "[]\n")
    write_whole(docs / "results.md", page(ordered))


if __name__ == "__main__":
    main()
