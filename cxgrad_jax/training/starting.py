"""``train.start_from``: a start from parameters whose body another run has trained."""

from pathlib import Path
from typing import Any

from cxgrad_jax.errors import UserError
from cxgrad_jax.pretraining import with_body_of
from cxgrad_jax.training.build import build_model
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.runs import Run, load_run


def start_run(config: ConfigDict) -> Run:
    """Opens the run that ``train.start_from`` names.

    Raises:
      UserError: there is none, or it has another model.
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
    """Gives fresh parameters the body of a run's checkpoint that is best in validation.

    If the learner has running averages, it gets those of the run too. The head, and parameters beside the network, stay
    fresh.

    Args:
      params: the parameters from the learner's ``init``.
      run: the result of ``start_run``.
      config: the configuration of the run that starts.
      images: ``[N, H, W, C]``. Only shape and dtype matter.

    Raises:
      UserError: the body's shapes differ, or the learner needs running averages and the run has none.
    """
    return with_body_of(
        params, run.params, build_model(config), images, f"train.start_from is {config.train.start_from}"
    )
