"""What cannot run is refused in one line."""

import re

import pytest

from cxgrad_jax.errors import UserError
from cxgrad_jax.training import checks
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.checks import check, check_parallel
from cxgrad_jax.training.config import base_config, pretrain_glyphs_config


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("episode.way", 1, "at least 2"),
        ("episode.shot", 0, "at least 1"),
        ("episode.query", -1, "at least 1"),
        ("train.iterations", 0, "at least 1"),
        ("train.meta_batch", 0, "at least 1"),
        ("evaluation.ensemble", 0, "at least 1"),
        ("parallel.tasks_per_chunk", -1, "at least 0"),
        ("seed", -1, "0 to 4294967295"),
        ("seed", 2**32, "0 to 4294967295"),
        ("train.learning_rate", 0.0, "a positive number"),
        ("train.learning_rate", 1e39, "a number that float32 can hold"),
        ("learner.context_lr", 1e-50, "a number that float32 can hold"),
        ("train.learning_rate", float("inf"), "a finite number"),
        ("learner.inner_lr", -0.1, "a positive number"),
        ("learner.context_lr", float("nan"), "a finite number"),
        ("learner.context_dim", 0, "at least 1"),
        ("learner.num_steps", 0, "at least 1"),
        ("learner.context_update", "epoch", "'task' or 'step'"),
        ("model.norm", "instance", "one of batch, layer, group"),
        ("model.norm_epsilon", -1.0, "at least 0"),
        ("model.precision", "low", "one of default, high, highest"),
        ("model.features", 0, "at least 1"),
        ("data.storage", "gpu", "one of auto, device, host"),
        ("data.image_size", 0, "at least 1"),
        ("train.task_reduction", "max", "one of mean, sum"),
    ],
)
def test_bad_values(field, value, words):
    config = base_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"^{field}( is| has) .*; .*{words}") as error:
        check(config)
    assert "\n" not in str(error.value) and str(value) in str(error.value)


def test_bad_combinations():
    config = base_config()
    config.model = configuration.model_config("conv4", norm="group", features=12)
    with pytest.raises(UserError, match="model.features is 12; expected whole numbers that are multiples of 8"):
        check(config)
    config.model = configuration.model_config("resnet12", channels=(8, 8))
    with pytest.raises(UserError, match=r"model.channels is \(8, 8\); expected 4 numbers of filters"):
        check(config)
    config.model = configuration.model_config("resnet12")
    config.data.image_size = 8  # enough for three poolings, not for four
    check(config)
    config.model.pooling = "every_block"
    with pytest.raises(UserError, match=r"data.image_size is 8: .*H and W at least 16"):
        check(config)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda c: c.train.__setattr__("iteration", 5),
            "train.iteration is not a field; did you mean train.iterations?",
        ),
        (lambda c: c.__delattr__("seed"), "seed is missing"),
        (lambda c: c.__delattr__("model"), "model is missing; expected what training.config.model_config"),
        (lambda c: c.__setattr__("learner", configuration.ConfigDict({"name": "sgd"})), "learner.name is 'sgd'"),
        (lambda c: c.learner.__setattr__("name", "maml"), "learner.context_dim is not a field of maml; expected"),
        (lambda c: c.__setattr__("episode", configuration.ConfigDict({"way": "5", "shot": 1, "query": 1})), "'5'"),
        (lambda c: c.__setattr__("episode", configuration.ConfigDict({"way": True, "shot": 1, "query": 1})), "True"),
    ],
)
def test_bad_fields(change, words):
    config = base_config()
    change(config)
    with pytest.raises(UserError, match=re.escape(words)):
        check(config)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"parallel.num_devices": 99}, "parallel.num_devices is 99, but 4 are visible"),
        ({"train.meta_batch": 2, "parallel.num_devices": 4}, "train.meta_batch is 2, not a multiple of the 4 devices"),
        ({"train.meta_batch": 8, "parallel.tasks_per_chunk": 4}, "expected a divisor of the 2 tasks of a device"),
    ],
)
def test_bad_divisions(changes, words):
    config = base_config()
    config.update_from_flattened_dict(changes)
    check(config)
    with pytest.raises(UserError, match=re.escape(words)):
        check_parallel(config)


def test_a_pretraining_has_one_task():
    config = pretrain_glyphs_config()
    config.train.meta_batch = config.parallel.tasks_per_chunk = 2
    with pytest.raises(UserError, match="parallel.tasks_per_chunk is 2; expected a divisor of the 1 tasks of a device"):
        check_parallel(config)


def test_a_dry_run_for_absent_devices_divides_the_tasks_among_those():
    config = base_config()
    config.parallel.num_devices = 99  # of devices that are here, no matter
    check_parallel(config, absent_devices=2)
    words = "train.meta_batch is 4, not a multiple of the 3 devices; name a device with a divisor of it"
    with pytest.raises(UserError, match=re.escape(words)):
        check_parallel(config, absent_devices=3)
    config.parallel.tasks_per_chunk = 4
    with pytest.raises(UserError, match="expected a divisor of the 2 tasks of a device"):
        check_parallel(config, absent_devices=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("evaluation.episodes", 2**31), ("evaluation.val_episodes", 10**30), ("data.image_size", 2**63),
        ("episode.way", 2**31), ("learner.num_steps", 2**31), ("model.features", 10**30), ("train.decay_every", 10**30),
    ],
)  # fmt: skip
def test_numbers_that_int32_cannot_count_are_refused(field, value):
    config = base_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"{field} is {value}; expected at most 2147483647"):
        checks.check(config)


def test_more_training_episodes_than_int32_counts_are_refused():
    config = base_config()
    config.train.iterations = 2**31 // 4
    with pytest.raises(UserError, match=r"train.iterations is 536870912 of 4 tasks each; expected at most 2147483647"):
        checks.check(config)
    config.train.iterations -= 1
    checks.check(config)
