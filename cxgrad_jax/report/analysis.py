"""``--mode=analyse``: what adaptation does to the networks of some runs, as pictures, CSV files and one HTML report.

All runs are measured on the same episodes, with the checkpoint that is best in validation. Accuracies over training and
Figure 2 come from the records of training. Figure 5 goes over the checkpoints at hand, of which ``train.keep_every``
keeps some over the whole training. ``figures/__init__.py`` lists the figures.
"""

import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cxgrad_jax import parallel
from cxgrad_jax.arguments import as_path
from cxgrad_jax.data import SPLITS, ImageStore
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import check_writable
from cxgrad_jax.machine import peak_memory
from cxgrad_jax.report.figures import FIGURES
from cxgrad_jax.report.html import write_report
from cxgrad_jax.report.measured_runs import check_measurable, names_of, open_run
from cxgrad_jax.report.study import Study
from cxgrad_jax.training import build
from cxgrad_jax.training.checks import LARGEST
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.images_of_run import check_same_images
from cxgrad_jax.training.transductive import batch_norm
from cxgrad_jax.training.workdir import check_same_run


def analyse(config: ConfigDict, options: ConfigDict, workdirs: Sequence[Path]) -> Path:
    """Measures the runs in ``workdirs`` and writes the report.

    Args:
      config: the configuration of the first run. Its ``data.dir`` and ``evaluation`` apply to all runs.
      options: the section ``analysis`` of the configuration.
      workdirs: the folders of the runs.

    Returns:
      The path of the report. Pictures and numbers are beside it.

    Raises:
      UserError: a folder holds no run with a validated checkpoint or is given twice, runs have other episodes or used
        other images, a value cannot be used, or data are not prepared.
    """
    start = time.perf_counter()
    check(config, options)
    alike = "an analysis may change fields of analysis, evaluation, parallel, and where the data lie"
    check_same_run(config, workdirs[0], "evaluation.", "parallel.", advice=alike)
    names = names_of(workdirs)
    stores = load_stores(config, options)
    test_store = next(iter(stores.values()))
    runs = [open_run(workdir, name, config, test_store) for workdir, name in zip(workdirs, names, strict=True)]
    check_measurable(runs)
    for workdir in workdirs:
        check_same_images(stores.values(), workdir)
    folder = as_path("analysis.dir", options.dir) if options.dir else workdirs[0] / "analysis"
    try:
        check_writable(folder)
    except UserError as error:
        raise UserError(f"{error}; --config.analysis.dir=DIR writes the report elsewhere") from None
    study = Study(runs, options, stores, parallel.task_mesh(), folder)
    sections = [section for figure in FIGURES for section in figure.sections(study)]
    path = folder / "report.html"
    title = "Analysis of " + ", ".join(run.name for run in runs)
    write_report(path, title, introduction(study), sections)
    peak = peak_memory()
    memory = f", peak memory {peak / 2**20:.0f} MiB" if peak else ""
    print(f"analysed in {time.perf_counter() - start:.0f} s{memory}", file=sys.stderr)
    return path


def load_stores(config: ConfigDict, options: ConfigDict) -> dict[tuple[str, str], ImageStore]:
    """Loads the images that the figures need, by data set and split. The test images to test on come first.

    Raises:
      UserError: a data set is not prepared, too small for the episodes, or has a different number of image channels.
    """
    test_data = config.evaluation.data or config.data.name
    needed = [(test_data, "test"), (options.cross_data, "test")]
    if options.landscape_split != "test":
        needed.append((config.data.name, options.landscape_split))
    stores = {(data, split): build.load_stores(config, (split,), data)[split] for data, split in needed if data}
    channels = {data: store.images.shape[-1] for (data, _), store in stores.items()}
    if len(set(channels.values())) > 1:
        told = ", ".join(f"{data} {number}" for data, number in channels.items())
        raise UserError(f"the data sets have different numbers of channels ({told}), which one network cannot take")
    return stores


def check(config: ConfigDict, options: ConfigDict) -> None:
    """Refuses values of the section ``analysis`` that cannot be used, and a machine without scikit-learn.

    Raises:
      UserError: a value is refused, or scikit-learn is missing. The line names the field and what is expected.
    """
    for field, least in (("episodes", 2), ("landscape_episodes", 1), ("embedding_episode", 0)):
        if options[field] < least:
            raise UserError(f"analysis.{field} is {options[field]}; expected at least {least}")
        if options[field] > LARGEST:
            raise UserError(f"analysis.{field} is {options[field]}; expected at most {LARGEST}")
    if options.landscape_split not in SPLITS:
        raise UserError(f"analysis.landscape_split is {options.landscape_split!r}; expected one of {', '.join(SPLITS)}")
    points = 2 * config.episode.way * config.episode.query
    if not 0 < options.perplexity < points:
        raise UserError(
            f"analysis.perplexity is {options.perplexity}; expected a number above 0 and below {points}, the points of "
            "t-SNE: the query images before and after adaptation"
        )
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("--mode=analyse needs scikit-learn: pip install 'cxgrad_jax[analysis]'")


def introduction(study: Study) -> list[str]:
    """What a reader must know of the runs, with one paragraph for each."""
    config = study.runs[0].config
    told = [
        f"Trained on {config.data.name}, measured on {config.evaluation.data or config.data.name}: "
        f"{config.episode.way}-way {config.episode.shot}-shot, {config.episode.query} query images a class, images of "
        f"{config.data.image_size} pixels. What this report measures itself, it measures on test episodes that are "
        f"numbered from 0 and drawn with seed {config.evaluation.seed}, the same for all runs. Accuracies, calibration "
        "and answers to further questions are those that each run has in its folder, on the episodes of its own test. "
        "Unless a caption says otherwise, a run is measured with the one checkpoint that was best in validation."
    ]
    for run in study.runs:
        told.append(
            f"{run.name}: {run.config.learner.name} on {run.config.model.name}, checkpoint {run.best}; trained for "
            f"{run.iterations[-1]} iterations of {run.config.train.meta_batch} tasks. Batch normalisation: "
            f"{batch_norm(run.config)}."
        )
    return told
