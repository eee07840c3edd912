"""What a figure measures of each run."""

from collections.abc import Callable, Iterable
from typing import Any

from cxgrad_jax.errors import UserError
from cxgrad_jax.report.measured_runs import MeasuredRun


def measured(
    runs: Iterable[MeasuredRun], measure: Callable[[MeasuredRun], Any], of: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The measures by run, and sentences that say why the other runs are not shown.

    One run that cannot be measured does not end a report, for which the others were measured long.

    Args:
      runs: the runs.
      measure: ``run -> measure``. A ``UserError`` of it becomes a sentence.
      of: what is not shown, for the sentences. If it is empty, it is all of the run.
    """
    found, missing = {}, []
    for run in runs:
        try:
            found[run.name] = measure(run)
        except UserError as error:
            missing.append(f"{run.name} is not shown{of}: {error}.")
    return found, missing
