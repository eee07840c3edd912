"""The paper's numbers stand beside runs of their model, data and iterations, and beside no other."""

import json
from pathlib import Path

import pytest

from cxgrad_jax.report.published import (
    AUTHORS,
    CONV4,
    METHODS,
    SHARED_FILTERS,
    SHARED_ITERATIONS,
    cell_of_paper,
    comparable_number,
    has_published_width,
)
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.config_files import load_config

BASELINES = Path(__file__).parents[2] / "configs" / "baselines"


def test_numbers_are_found_by_learner_backbone_data_and_shot():
    config = configuration.base_config()
    assert comparable_number(config) == (51.80, 0.46)
    assert comparable_number(configuration.five_shot(config)) == (69.82, 0.42)
    config.evaluation.data = "cub"
    assert comparable_number(config) == (63.92, 0.44)
    config.evaluation.data, config.model = "", configuration.model_config("resnet12")
    assert comparable_number(config) == (75.17, 0.40)
    config.learner = configuration.learner_config("cavia")
    assert comparable_number(config) is None
    not_in_the_paper = {
        "anil", "baseline_plus_plus", "classifier_baseline", "cxgrad_explicit", "cxgrad_informed", "meta_baseline",
        "meta_sgd", "metal", "metaoptnet", "r2d2", "rfs", "unicorn_maml",
    }  # fmt: skip
    assert CONV4.keys() == METHODS.keys() == {path.stem for path in BASELINES.glob("*.py")} - not_in_the_paper
    assert json.dumps(CONV4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train.iterations", 2_000), ("model.features", 32), ("model.norm", "layer"), ("data.name", "cifar_fs"),
        ("episode.way", 20), ("learner.inner_lr", 0.02),
    ],
)  # fmt: skip
def test_another_run_has_no_number_beside_it(field, value):
    config = configuration.base_config()
    config.update_from_flattened_dict({field: value})
    assert comparable_number(config) is None
    if field == "model.norm":
        assert cell_of_paper(config) is None


def test_the_text_s_preset_is_the_paper_s_run_too():
    assert comparable_number(load_config("configs/mini_1shot.py:paper")) == (51.80, 0.46)


def test_cavia_s_number_is_of_512_filters():
    here, authors = (load_config(f"configs/baselines/cavia.py:{preset}") for preset in ("shared", "authors"))
    assert cell_of_paper(here) == cell_of_paper(authors) == comparable_number(authors) == (51.82, 0.65)
    assert comparable_number(here) is None and not has_published_width(here) and has_published_width(authors)


@pytest.mark.parametrize("name", METHODS)
def test_authors_filters_and_iterations_are_those_of_the_presets(name):
    config = load_config(f"configs/baselines/{name}.py:authors")
    expected = AUTHORS.get(name, (SHARED_FILTERS, SHARED_ITERATIONS["mini_imagenet"]))
    assert (config.model.features, config.train.iterations) == expected
