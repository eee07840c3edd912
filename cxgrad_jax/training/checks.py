"""Checks before anything is computed: they refuse fields, values and combinations that cannot run."""

import difflib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cxgrad_jax.augmentation import AUGMENTATIONS
from cxgrad_jax.errors import UserError
from cxgrad_jax.training.build import build_learner, is_pretraining, num_devices
from cxgrad_jax.training.config import (
    ConfigDict,
    base_config,
    expected_type,
    fields,
    learner_config,
    model_config,
    pretraining_stage,
    value_at,
)  # fmt: skip

LARGEST = 2**31 - 1  # arrays and programs count in int32
SMALLEST, LARGEST_FLOAT = (float(getattr(np.finfo(np.float32), name)) for name in ("smallest_normal", "max"))
SEEDS = ("seed", "evaluation.seed")


def check(config: ConfigDict) -> None:
    """Refuses fields, values and combinations that cannot run. It needs no data.

    If the learner or its model refuses a value, the line also has the section of the field.

    Raises:
      UserError: something is refused. The line names the field, its value and what is expected.
    """
    check_fields(config)
    _choice(config, "data.storage", ("auto", "device", "host"))
    _choice(config, "train.task_reduction", ("mean", "sum"))
    _at_least(config, "episode.way", 2)
    for field in (
        "data.image_size", "episode.shot", "episode.query", "train.epoch_iterations",
        "train.meta_batch", "evaluation.episodes", "evaluation.val_episodes", "evaluation.ensemble",
    ):  # fmt: skip
        _at_least(config, field, 1)
    for field in (
        "train.decay_every", "train.gradient_clamp", "train.keep_every", "train.iterations_per_dispatch",
        "parallel.num_devices", "parallel.tasks_per_chunk",
    ):  # fmt: skip
        _at_least(config, field, 0)
    _at_least(config, "train.iterations", 0 if config.train.start_from else 1)
    if config.train.keep_every % config.train.epoch_iterations:
        raise UserError(
            f"train.keep_every is {config.train.keep_every}; expected a multiple of train.epoch_iterations "
            f"({config.train.epoch_iterations}), after which checkpoints are made"
        )
    for field, value in fields(config).items():
        if isinstance(value, int) and value > LARGEST and field not in SEEDS:
            raise UserError(f"{field} is {value}; expected at most {LARGEST}")
        size = abs(value) if isinstance(value, float) else 0
        if size and not SMALLEST <= size <= LARGEST_FLOAT:
            raise UserError(
                f"{field} is {value}; expected a number that float32 can hold, of {SMALLEST:.2g} to {LARGEST_FLOAT:.2g}"
            )
    if config.train.iterations * config.train.meta_batch > LARGEST:
        raise UserError(
            f"train.iterations is {config.train.iterations} of {config.train.meta_batch} tasks each; expected at most "
            f"{LARGEST} tasks in all"
        )
    for field in SEEDS:
        if not 0 <= value_at(config, field) < 2**32:
            raise UserError(f"{field} is {value_at(config, field)}; expected 0 to 4294967295")
    for field in ("train.learning_rate", "train.decay_factor"):
        if not value_at(config, field) > 0:
            raise UserError(f"{field} is {value_at(config, field)}; expected a positive number")
    if is_pretraining(config):
        _check_pretraining(config)
    try:
        learner = build_learner(config)
    except UserError as error:
        raise UserError(f"{_section(config, str(error))}{error}") from None
    size = config.data.image_size
    try:
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8)
        jax.eval_shape(lambda images: learner.init(jax.random.key(0), images), images)
    except UserError as error:
        raise UserError(f"data.image_size is {size}: {error}") from None


def _check_pretraining(config: ConfigDict) -> None:
    _choice(config, "pretrain.augmentation", AUGMENTATIONS)
    for field in ("pretrain.num_classes", "pretrain.batch_size"):
        _at_least(config, field, 2)
    for field in ("pretrain.momentum", "pretrain.weight_decay"):
        if not 0 <= value_at(config, field) < 1:
            raise UserError(f"{field} is {value_at(config, field)}; expected a number from 0 on, less than 1")
    if not config.pretrain.drop_factor > 0:
        raise UserError(f"pretrain.drop_factor is {config.pretrain.drop_factor}; expected a positive number")
    if not all(1 <= iteration <= LARGEST for iteration in config.pretrain.drop_at):
        raise UserError(f"pretrain.drop_at is {config.pretrain.drop_at}; expected iterations, 1 to {LARGEST}")
    if config.learner.get("query_statistics") != "running":
        given = config.learner.get("query_statistics", "absent")
        raise UserError(
            f"learner.query_statistics is {given!r}; expected 'running', since running averages judge a pre-training, "
            "and a learner that has them, such as classifier_baseline"
        )


def _section(config: ConfigDict, message: str) -> str:
    """The section of the field that a message begins with: ``"learner."``, ``"model."`` or nothing."""
    field = message.split()[0]
    return next((f"{section}." for section in ("learner", "model") if field in config[section]), "")


def check_parallel(config: ConfigDict, absent_devices: int = 0) -> None:
    """Refuses a division of the training over devices and chunks that leaves a remainder.

    Args:
      config: the configuration of a run.
      absent_devices: the number of devices that a dry run supposes in the place of those that are here; 0 for these.

    Raises:
      UserError: the division is refused. The line names the field, its value and what is expected.
    """
    devices, mend = absent_devices, "name a device with a divisor of it"
    if not absent_devices:
        devices, mend = num_devices(config), "set parallel.num_devices to a divisor of it"
        if devices > jax.device_count():
            raise UserError(f"parallel.num_devices is {devices}, but {jax.device_count()} are visible; 0 takes all")
        if jax.process_count() > 1 and devices != jax.device_count():
            raise UserError(f"parallel.num_devices is {devices}; several processes use all of their devices, with 0")
    if config.train.meta_batch % devices:
        raise UserError(
            f"train.meta_batch is {config.train.meta_batch}, not a multiple of the {devices} devices; {mend}"
        )
    tasks = 1 if is_pretraining(config) else config.train.meta_batch // devices
    if config.parallel.tasks_per_chunk and tasks % config.parallel.tasks_per_chunk:
        raise UserError(
            f"parallel.tasks_per_chunk is {config.parallel.tasks_per_chunk}; expected a divisor of the {tasks} tasks "
            "of a device"
        )


def check_fields(config: ConfigDict) -> None:
    """Refuses a configuration whose fields are not those of ``base_config``, its learner and its model.

    Raises:
      UserError: a field is missing, unknown or of another type. The line names it.
    """
    expected = expected_fields(config)
    given, known = fields(config), fields(expected)

    def whose_and_mend(field):
        section = field.split(".")[0]
        if section not in ("learner", "model"):
            return "", ""
        name = config[section].name
        return f" of {name}", f"; to use another {section}, name a configuration file that has it: --config=FILE"

    for field in known:
        if field not in given:
            (whose, mend), kind = whose_and_mend(field), expected_type(known[field])
            raise UserError(f"{field}{whose} is missing in the configuration; expected {kind}{mend}")
    for field, value in given.items():
        if field not in known:
            whose, mend = whose_and_mend(field)
            if close := difflib.get_close_matches(field, known, n=1, cutoff=0.8):
                raise UserError(f"{field} is not a field{whose}; did you mean {close[0]}?")
            names = ", ".join(expected.get(field.split(".")[0], expected))
            raise UserError(f"{field} is not a field{whose}; expected {names}{mend}")
        if not _is_like(value, known[field]):
            raise UserError(f"{field} is {value!r}; expected {expected_type(known[field])}")


def expected_fields(config: ConfigDict) -> ConfigDict:
    """The defaults of all fields that a configuration with this learner and model has."""
    expected = base_config()
    for section, make in (("learner", learner_config), ("model", model_config)):
        if not isinstance(config.get(section), ConfigDict) or not isinstance(config[section].get("name"), str):
            raise UserError(f"{section} is missing; expected what training.config.{section}_config(NAME) gives")
        expected[section] = make(config[section].name)
    if is_pretraining(config):
        expected.pretrain = pretraining_stage()
    return expected


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(type(number) is int for number in value)
    if default is None:
        return value is None or isinstance(value, str)
    return type(value) is type(default)


def _choice(config: ConfigDict, field: str, choices: tuple[str, ...]) -> None:
    value = value_at(config, field)
    if value not in choices:
        raise UserError(f"{field} is {value!r}; expected one of {', '.join(choices)}")


def _at_least(config: ConfigDict, field: str, minimum: int) -> None:
    value = value_at(config, field)
    if value < minimum:
        raise UserError(f"{field} is {value}; expected at least {minimum}")
