"""The presets that ``--config=FILE:PRESET`` chooses."""

from cxgrad_jax.errors import UserError
from cxgrad_jax.training.config import ConfigDict


def apply_preset(config: ConfigDict, preset: str | None) -> ConfigDict:
    """Applies the preset ``"paper"``, which follows the paper's text where it disagrees with the official code.

    None keeps the defaults, which follow the official code. The text has ReLU, the sum over tasks, the first context
    step inside the outer gradient, and pooling in every block of ResNet-12.

    Raises:
      UserError: the preset is unknown.
    """
    if not preset:
        return config
    one_of(preset, ("paper",))
    config.model.negative_slope = 0.0
    config.train.task_reduction = "sum"
    if config.model.name == "resnet12":
        config.model.pooling = "every_block"
    if config.learner.name == "cxgrad":
        config.learner.differentiate_first_context = True
    return config


def is_authors(preset: str | None) -> bool:
    """Whether the preset of a baseline is ``"authors"``, its method's own published settings.

    The other preset is ``"shared"`` (or None), the setting that all learners share.

    Raises:
      UserError: the preset is unknown.
    """
    return one_of(preset or "shared", ("shared", "authors")) == "authors"


def one_of(preset: str, choices: tuple[str, ...]) -> str:
    """Returns ``preset``, which must be one of ``choices``.

    Raises:
      UserError: the preset is unknown.
    """
    if preset not in choices:
        raise UserError(f"preset {preset!r} is unknown; write --config=FILE:PRESET with one of {', '.join(choices)}")
    return preset
