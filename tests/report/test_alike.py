"""Configurations that stand side by side agree in the fields that a table or a report needs."""

import pytest

from cxgrad_jax.errors import UserError
from cxgrad_jax.report.alike import check_alike
from cxgrad_jax.training.config import base_config, five_shot

FIELDS = ("data.name", "evaluation.data", "episode.shot")


def test_the_line_names_both_configurations_and_the_field():
    configs = {"one": base_config(), "five": five_shot(base_config())}
    with pytest.raises(UserError, match=r"^episode.shot is 5 in five, but 1 in one; give episode.shot for all$"):
        check_alike(configs, FIELDS, "give {field} for all")
    check_alike(configs, FIELDS[:2], "")


def test_without_data_to_test_on_they_are_those_trained_on():
    configs = {name: base_config() for name in ("empty", "same", "other")}
    configs["same"].evaluation.data = configs["same"].data.name
    configs["other"].evaluation.data = "cub"
    with pytest.raises(UserError, match="evaluation.data is 'cub' in other, but 'mini_imagenet' in empty; advice"):
        check_alike(configs, FIELDS, "advice")
    del configs["other"]
    check_alike(configs, FIELDS, "advice")
