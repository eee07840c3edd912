"""The study from which every figure of the report is made, and measures over the episodes of a run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from cxgrad_jax.data import ImageStore
from cxgrad_jax.episodes import Sampler
from cxgrad_jax.evaluation import over_episodes
from cxgrad_jax.files import csv_text, write_whole
from cxgrad_jax.report.measured_runs import MeasuredRun
from cxgrad_jax.training import build
from cxgrad_jax.training.config import ConfigDict


class Study(NamedTuple):
    """Some runs, measured on the same episodes.

    Attributes:
      runs: the opened runs. The configuration of the first draws the episodes.
      options: the section ``analysis`` of the configuration.
      stores: the images by data set and split. The test images of the data set to test on come first.
      mesh: the mesh to work on.
      folder: the folder that receives pictures and numbers.
    """

    runs: Sequence[MeasuredRun]
    options: ConfigDict
    stores: Mapping[tuple[str, str], ImageStore]
    mesh: Mesh
    folder: Path


def test_store(study: Study) -> ImageStore:
    """The test images of the data set to test on."""
    return next(iter(study.stores.values()))


def sampler_of(study: Study, store: ImageStore) -> Sampler:
    """The episodes of a store, the same for all runs."""
    return build.build_sampler(study.runs[0].config, store)


def adapting(study: Study) -> list[MeasuredRun]:
    """The runs that adapt parameters."""
    return [run for run in study.runs if not run.remark]


def remarks(study: Study) -> list[str]:
    """Sentences that say why the other runs are not shown."""
    return [run.remark for run in study.runs if run.remark]


def over_episodes_of(
    study: Study,
    run: MeasuredRun,
    measure: Callable[..., Any],
    num_episodes: int,
    *,
    draw: Callable[..., Any] | None = None,
    store: ImageStore | None = None,
    title: str = "",
) -> Callable[[Any], Any]:
    """Makes the function ``params -> measures`` of the first episodes, NumPy arrays ``[num_episodes, ...]``.

    Args:
      study: the study.
      run: the run whose learner is measured.
      measure: ``(learner, params, episode) -> pytree of arrays``.
      num_episodes: the number of episodes.
      draw: ``indices -> episodes``. None means the sampler's.
      store: the images of the episodes. None means the test images.
      title: the title of a progress bar. If it is empty, there is none.
    """
    draw = draw or sampler_of(study, store or test_store(study)).batch
    title = f"{title}, {run.name}" if title else ""
    return over_episodes(lambda params, x: measure(run.learner, params, x), draw, num_episodes, study.mesh, title)


def on_one_episode(run: MeasuredRun, measure: Callable[..., Any], params: Any, episode: Any) -> Any:
    """The measure of one episode, compiled."""
    return jax.jit(lambda params, episode: measure(run.learner, params, episode))(params, episode)


def write_numbers(study: Study, name: str, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Writes ``name.csv``."""
    write_whole(study.folder / f"{name}.csv", csv_text(head, lines))
