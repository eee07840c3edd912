"""``train.start_from``: a start from parameters whose body is trained already."""

import os
from typing import Any

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import model_spec
from cxgrad_jax.pretraining import with_body_of
from cxgrad_jax.saving import load
from cxgrad_jax.training.build import build_model
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.runs import load_run


def trained_params(config: ConfigDict) -> Any:
    """Reads the meta-parameters that ``train.start_from`` names.

    A folder is a run, whose checkpoint is the one best in validation. Anything else is weights, as ``cx.load`` finds
    them.

    Raises:
      UserError: there are none, they are damaged, they describe no learner, or they are of another model.
    """
    origin = os.path.expanduser(config.train.start_from)
    if os.path.isdir(origin):  # unlike Path.is_dir, it raises nothing if a folder may not be read
        try:
            run = load_run(origin, named=(config.learner.name, config.model.name))
        except UserError as error:
            raise UserError(f"train.start_from is not a run to start from; {error}") from None
        params, kind, theirs, ours = run.params, "a run", run.config.model.to_dict(), config.model.to_dict()
    else:
        try:
            learner, params = load(origin)
        except UserError as error:
            raise UserError(f"train.start_from is not a folder; {error}") from None
        kind = "weights"
        theirs, ours = (
            {"class": spec["class"], **spec["fields"], "num_classes": None}  # the head stays fresh
            for spec in (learner.spec["model"], model_spec(build_model(config)))
        )
    different = [
        f"{field}: {theirs.get(field)!r}, not {ours.get(field)!r}"
        for field in theirs | ours
        if theirs.get(field) != ours.get(field)
    ]
    if different:
        raise UserError(f"train.start_from is {origin}, {kind} of another model ({'; '.join(different)})")
    return params


def started(params: Any, trained: Any, config: ConfigDict, images: Any) -> Any:
    """Gives fresh parameters a trained body.

    If the learner has running averages, it gets the trained ones too. The head, and parameters beside the network, stay
    fresh.

    Args:
      params: the parameters from the learner's ``init``.
      trained: the result of ``trained_params``.
      config: the configuration of the run that starts.
      images: ``[N, H, W, C]``. Only shape and dtype matter.

    Raises:
      UserError: the body's shapes differ, or the learner needs running averages and there are none.
    """
    return with_body_of(params, trained, build_model(config), images, f"train.start_from is {config.train.start_from}")
