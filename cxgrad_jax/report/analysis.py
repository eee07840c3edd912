"""``--mode=analyse``: what adaptation does to the networks of some runs, as pictures, CSV files and one HTML report.

Each measure is taken of all runs on the same test episodes, with the checkpoint that is best in validation; Figure 2 is
read from what training recorded, and Figure 5 goes over the checkpoints at hand (``train.keep_every`` keeps more).
"""

import importlib.util
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from cxgrad_jax import parallel
from cxgrad_jax.errors import UserError
from cxgrad_jax.report import sections
from cxgrad_jax.report.html import write_report
from cxgrad_jax.report.runs import Run, check_alike, open_run
from cxgrad_jax.training import build
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.config import ConfigDict


def analyse(config: ConfigDict, options: ConfigDict, workdirs: Sequence[Path]) -> Path:
    """Measures the runs in ``workdirs`` and writes the report.

    Args:
      config: of the first run; where the data lie and what to test on is for all runs.
      options: the section ``analysis`` of the configuration.
      workdirs: of the runs.

    Returns:
      The path of the report. Pictures and numbers lie beside it.

    Raises:
      UserError: a folder that holds no run with a validated checkpoint, runs on other episodes, a value that cannot be
        used, or data that are not prepared.
    """
    start = time.perf_counter()
    check(config, options)
    workdir_of.check_same_run(config, workdirs[0], "evaluation.", "parallel.")
    test_data = config.evaluation.data or config.data.name
    stores = {
        name: build.load_stores(config, ("test",), name)["test"] for name in (test_data, options.cross_data) if name
    }
    store = stores[test_data]
    runs = [open_run(workdir, config, store) for workdir in workdirs]
    check_alike(runs)
    folder = Path(options.dir) if options.dir else workdirs[0] / "analysis"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"analysis.dir {folder} cannot be made: {error.strerror}") from None
    mesh = parallel.task_mesh(jax.device_count())
    parts = [
        sections.gradient_norms_over_training(runs, folder),
        sections.feature_similarity(runs, options, store, mesh, folder),
        sections.embedding_pictures(runs, options, stores, folder),
        sections.landscape_over_training(runs, options, store, mesh, folder),
        *sections.conditioning_of_runs(runs, options, store, mesh, folder),
    ]
    path = folder / "report.html"
    write_report(path, "Analysis of " + ", ".join(run.name for run in runs), introduction(runs, test_data), parts)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"analysed in {time.perf_counter() - start:.0f} s, peak memory {peak:.0f} MiB", file=sys.stderr)
    return path


def check(config: ConfigDict, options: ConfigDict) -> None:
    """Refuses values of the section ``analysis`` that cannot be used, and a machine without scikit-learn.

    Raises:
      UserError: names the field, its value and what is expected.
    """
    for field, least in (("episodes", 2), ("landscape_episodes", 1), ("embedding_episode", 0)):
        if options[field] < least:
            raise UserError(f"analysis.{field} is {options[field]}; expected at least {least}")
    points = 2 * config.episode.way * config.episode.query
    if not 0 < options.perplexity < points:
        raise UserError(
            f"analysis.perplexity is {options.perplexity}; expected a number above 0 and below {points}, the points of "
            "t-SNE: the query images before and after adaptation"
        )
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("--mode=analyse needs scikit-learn: pip install 'cxgrad_jax[analysis]'")


def introduction(runs: Sequence[Run], test_data: str) -> list[str]:
    """What a reader must know of the runs, a paragraph each."""
    config = runs[0].config
    told = [
        f"Trained on {config.data.name}, measured on {test_data}: {config.episode.way}-way {config.episode.shot}-shot, "
        f"{config.episode.query} query images a class, images of {config.data.image_size} pixels. Test episodes are "
        f"numbered from 0 and drawn with seed {config.seed}, the same for all runs. Unless a caption says otherwise, "
        "each run is measured with its one checkpoint that was best in validation."
    ]
    for run in runs:
        told.append(
            f"{run.name}: {run.config.learner.name} on {run.config.model.name}, checkpoint {run.best}; trained for "
            f"{run.iterations[-1]} iterations of {run.config.train.meta_batch} tasks."
        )
    return told
