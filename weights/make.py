"""Makes weights to give away from a finished run: ``weights/NAME.safetensors`` and its model card ``weights/NAME.md``.

    python -m weights.make RUN NAME --commit=COMMIT

The file holds one network, the checkpoint that is best in validation. It is read back and tested on the run's own test
episodes, by every query statistics that the learner takes. All numbers of the card come from that test and from the
files of the run. COMMIT is the one of this repository that the run was trained at.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import cxgrad_jax as cx
from cxgrad_jax.command_line import Parser, exit_status, start
from cxgrad_jax.data.datasets.catalogue import facts
from cxgrad_jax.files import write_whole
from cxgrad_jax.pretraining import with_body_of
from cxgrad_jax.report.results import results_at_hand
from cxgrad_jax.report.seeds import summary
from cxgrad_jax.report.tables import markdown_table, percent, percent_with
from cxgrad_jax.saving import params_sha256
from cxgrad_jax.training import build
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.config_files import command_of
from cxgrad_jax.training.transductive import is_transductive

FOLDER = Path(__file__).parent
LICENCES = {
    "cifar_fs": "the publisher of CIFAR-100 names no licence and asks for the citation of A. Krizhevsky, Learning "
    "Multiple Layers of Features from Tiny Images, 2009; the split is L. Bertinetto et al., ICLR 2019",
    "glyphs": "Unicode characters drawn from the DejaVu fonts, which are free (Bitstream Vera's licence)",
}


def make(run: Path, name: str, commit: str, folder: Path = FOLDER) -> None:
    """Writes the weights and the card of a run.

    Args:
      run: its folder.
      name: of the weights.
      commit: at which the run was trained.
      folder: receives ``NAME.safetensors`` and ``NAME.md``.

    Raises:
      UserError: there is no such run, it is not finished, its data have no licence here, or as ``cx.save``.
    """
    opened, results = cx.load_run(run), results_at_hand(run)
    config = opened.config
    if not results or results["iterations"] != config.train.iterations:
        raise cx.UserError(f"{run} is not finished; run its command again")
    if config.data.name not in LICENCES:
        raise cx.UserError(
            f"LICENCES in {Path(__file__).name} says nothing of {config.data.name}; write its licence there"
        )
    store = build.load_stores(config, ("test",), config.evaluation.data or config.data.name)["test"]
    learner, params = few_shot(opened, store.images[:2])
    path = folder / f"{name}.safetensors"
    cx.save(path, learner, params, image_size=config.data.image_size)
    learner, params = cx.load(path)  # what is tested is the file
    sampler, tested = build.build_sampler(config, store), {}
    for statistics, each in by_statistics(learner).items():
        print(f"{name}: testing with query_statistics={statistics!r}", flush=True)
        tested[statistics] = cx.evaluate(each, params, sampler, episodes=config.evaluation.episodes, progress=True)
    checkpoint = results["ensemble_iterations"][0]
    write_whole(folder / f"{name}.md", card(name, path, run, config, checkpoint, commit, tested))


def few_shot(run: cx.Run, images: Any) -> tuple[cx.MetaLearner, Any]:
    """The learner of a run and its parameters; of a pre-training what judges it, without the classifier's head."""
    if not build.is_pretraining(run.config):
        return run.learner, run.params
    config = ConfigDict({name: part for name, part in run.config.items() if name != "pretrain"})
    learner, model = build.build_learner(config), build.build_model(config)
    fresh = learner.init(jax.random.key(0), jnp.asarray(images))
    return learner, with_body_of(fresh, run.params, model, images, "the run")


def by_statistics(learner: cx.MetaLearner) -> dict[str, cx.MetaLearner]:
    """The learner by each of the query statistics that it takes, its own first."""
    own = learner.spec["hyper_parameters"]["query_statistics"]
    batch_norm = learner.spec["model"]["fields"].get("norm", "batch") == "batch"
    found = {own: learner}
    for name in ("query", "support") if batch_norm else ():
        try:
            hyper_parameters = {**learner.spec["hyper_parameters"], "query_statistics": name}
            found.setdefault(name, cx.learners.from_spec({**learner.spec, "hyper_parameters": hyper_parameters}))
        except cx.UserError:  # such as "support" where support and query images are encoded together
            pass
    return found


def card(
    name: str, path: Path, run: Path, config: ConfigDict, checkpoint: int, commit: str, tested: dict[str, cx.Evaluation]
) -> str:
    """The model card, Markdown with the head that the Hugging Face Hub reads.

    Args:
      name: of the weights.
      path: of their file.
      run: that they come from.
      config: of the run.
      checkpoint: the iteration after which it was saved.
      commit: at which the run was trained.
      tested: the accuracies of the file by query statistics, the learner's own first.
    """
    learner, params = cx.load(path)
    data, episode, size = config.data.name, config.episode, config.data.image_size
    of_data = facts(data)
    images = f"[N, {size}, {size}, {of_data.channels}]"
    budget = f"{config.train.iterations:,} iterations of {config.train.meta_batch} tasks, seed {config.seed}"
    if build.is_pretraining(config):
        budget = (
            f"{config.train.iterations:,} batches of {config.pretrain.batch_size} images, seed {config.seed}; as a "
            "classifier of the training classes, whose head is dropped"
        )
    elif config.train.start_from:
        budget += f"; from the body of {Path(config.train.start_from).name}"
    about = {
        "learner": f"`{learner!r}`",
        "images": f"`{images}`, uint8 or floats in [0, 1]",
        "data": f"{data}: {of_data.title}",
        "licence of the data": LICENCES[data],
        "training": budget,
        "checkpoint": f"the one best in validation, after {checkpoint:,} iterations",
        "command": f"`{command_of(config)}`",
        "commit": f"`{commit}`",
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}, {path.stat().st_size / 1000:,.0f} kB",
        "SHA-256 of the parameters": f"`{params_sha256(params)}`",
    }
    accuracies = [["query_statistics", "a prediction sees", "accuracy %, ± the 95 % interval over tasks"]]
    for statistics, result in tested.items():
        seeing = ConfigDict(config.to_dict())
        seeing.learner.query_statistics = statistics
        sees = (
            "all query images of its episode: transductive" if is_transductive(seeing) else "its own image: inductive"
        )
        accuracies.append([f'`"{statistics}"`', sees, percent_with(result.accuracy, result.ci95)])
    listed = "\n".join(f"- **{name}**: {text}" for name, text in about.items())
    own = next(iter(tested))
    setting = (
        f"{episode.way}-way {episode.shot}-shot, {episode.query} query images a class, "
        f"{config.evaluation.episodes} episodes of the test classes of {config.evaluation.data or data}, "
        f"of seed {config.evaluation.seed}"
    )
    return f"""---
license: apache-2.0
library_name: cxgrad_jax
tags: [few-shot, meta-learning, jax]
datasets: [{data}]
metrics: [accuracy]
---
# {name}

```python
import cxgrad_jax as cx

learner, params = cx.load("{name}")
adapted = learner.adapt(params, images, labels)    # {images}, and 0 to {episode.way - 1}
logits = learner.predict(params, adapted, others)  # [N, {episode.way}]
```

{listed}

Test accuracy of this very file: {setting}. It was trained with `query_statistics="{own}"`.

{markdown_table(accuracies)}{over_seeds(run, own)}
The file holds no image. Its licence is Apache-2.0, as the package's.
"""


def over_seeds(run: Path, statistics: str) -> str:
    """A sentence on the runs beside ``run`` that differ in their seed, if it is one of ``seed_0``, ``seed_1``, …."""
    siblings = sorted(run.parent.glob("seed_*")) if re.fullmatch(r"seed_\d+", run.name) else []
    found = [results for folder in siblings if (results := results_at_hand(folder))]
    if len(found) < 2:
        return ""
    alone = {"test_accuracy": "single_model_test_accuracy", "test_ci95_tasks": "single_model_test_ci95_tasks"}
    of_seeds = summary([{**each, **{name: each[single] for name, single in alone.items()}} for each in found])
    return (
        f'\nOver {len(found)} training seeds, each with its best checkpoint, by `"{statistics}"`: '
        f"{percent_with(of_seeds.accuracy, of_seeds.ci95_seeds)} %, ± the 95 % t-interval over seeds; standard "
        f"deviation {percent(of_seeds.std_seeds)} percentage points.\n"
    )


def main(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        parser = Parser(prog="python -m weights.make", description=(__doc__ or "").split("\n")[0])
        parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
        parser.add_argument("name", metavar="NAME", help="of the weights, such as maml_cifar_fs_1shot")
        parser.add_argument("--commit", required=True, help="at which the run was trained")
        given = parser.parse_args(arguments)
        found = subprocess.run(
            ["git", "rev-parse", "--short=10", "--verify", f"{given.commit}^{{commit}}"], cwd=FOLDER,
            capture_output=True, text=True,
        )  # fmt: skip
        if found.returncode:
            raise cx.UserError(f"--commit: {given.commit} is no commit of this repository")
        make(given.run, given.name, found.stdout.strip())

    return exit_status(action)


if __name__ == "__main__":
    start(main)
