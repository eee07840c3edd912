"""What a figure measures of each run."""

from collections.abc import Callable, Iterable
from typing import Any

from cxgrad_jax.errors import UserError
from cxgrad_jax.report.measured_runs import MeasuredRun


def measured(
    runs: Iterable[MeasuredRun], measure: Callable[[MeasuredRun], Any], where: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The measures by run, and sentences that say why the other runs are not shown.

    One run that cannot be measured does not end the report. Measuring the others took long.

    Args:
      runs: the runs.
      measure: ``run -> measure``. A ``UserError`` of it becomes a sentence.
      where: where a run is not shown, such as ``" on cub"``. If it is empty, it is shown nowhere.
    """
    found, missing = {}, []
    for run in runs:
        try:
            found[run.name] = measure(run)
        except UserError as error:
            missing.append(f"{run.name} is not shown{where}: {error}.")
    return found, missing
