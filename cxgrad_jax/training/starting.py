"""``train.start_from``: parameters whose body another run has trained."""

from pathlib import Path
from typing import Any

from cxgrad_jax.errors import UserError
from cxgrad_jax.pretraining import with_body_of
from cxgrad_jax.training.build import build_model
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.runs import Run, load_run


def start_run(config: ConfigDict) -> Run:
    """The run ``train.start_from``.

    Raises:
      UserError: there is none, or it is one of another model.
    """
    folder = config.train.start_from
    run = load_run(Path(folder), named=(config.learner.name, config.model.name))
    theirs, ours = run.config.model.to_dict(), config.model.to_dict()
    different = [
        f"{field}: {theirs.get(field)!r}, not {ours.get(field)!r}"
        for field in theirs | ours
        if theirs.get(field) != ours.get(field)
    ]
    if different:
        raise UserError(f"train.start_from is {folder}, a run of another model ({'; '.join(different)})")
    return run


def started(params: Any, run: Run, config: ConfigDict, images: Any) -> Any:
    """Fresh parameters with the body of a run's checkpoint that is best in validation.

    Its running averages come with it where the learner has some. The head and what the learner has beside the network
    stay fresh.

    Args:
      params: what the learner's ``init`` drew.
      run: of ``start_run``.
      config: of the run that starts.
      images: ``[N, H, W, C]``; only shape and dtype matter.

    Raises:
      UserError: the body's shapes differ, or the learner needs running averages and the run has none.
    """
    return with_body_of(
        params, run.params, build_model(config), images, f"train.start_from is {config.train.start_from}"
    )
