"""Learners of one's own: found by name, with their hyper-parameters, or refused in one line."""

import sys

import pytest

from cxgrad_jax.errors import UserError
from cxgrad_jax.files import write_json
from cxgrad_jax.training import build, factories
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.checks import check
from cxgrad_jax.training.config import base_config, glyphs_config, learner_config, to_json
from cxgrad_jax.training.workdir import FORMAT, read_config


def test_a_learner_of_ones_own_needs_no_entry_anywhere(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("from cxgrad_jax.learners import maml\ndef mine(model, *, inner_lr=0.5):\n"
                                     "    return maml(model, inner_lr=inner_lr)\n")  # fmt: skip
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    config = base_config()
    config.learner = configuration.learner_config("own.mine", inner_lr=0.1)
    check(config)
    assert build.build_learner(config) and config.learner.to_dict() == {"name": "own.mine", "inner_lr": 0.1}
    for name, words in {
        "own.other": "own has no other",
        "nowhere.f": "no module nowhere",
        "broken.f": "ZeroDiv",
    }.items():
        with pytest.raises(UserError, match=f"^learner.name is '{name}'; .*{words}") as error:
            configuration.learner_config(name)
        assert "\n" not in str(error.value)


OWN = """
import cxgrad_jax as cx
constant = 3
def listy(model, *, sizes=[1, 2]): return cx.learners.maml(model, num_steps=len(sizes))
def needy(model, *, needed): return cx.learners.maml(model)
def lonely(*, steps=1): return 3
def three(model): return 3
def raising(model): return None + 1
"""


def test_a_list_as_default_of_a_learner_of_the_users_own_is_a_tuple(tmp_path, monkeypatch):
    (tmp_path / "own_lists.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = glyphs_config()
    config.learner = learner_config("own_lists.listy")
    check(config)
    write_json(tmp_path / "config.json", {"format": FORMAT, **to_json(config)})
    found = read_config(tmp_path, named=("own_lists.listy",))
    assert found.learner.sizes == config.learner.sizes == (1, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_learners.needy", "is .*; expected a function .*: missing a required .*argument: 'needed'"),
        ("own_learners.lonely", "is .*; expected a function .*: too many positional arguments"),
        ("own_learners.constant", "is .*; expected a function .*: 3 is not a callable object"),
        ("builtins.dict", "is .*; expected a function .*: no signature found"),
        ("json.decoder", "is .*; expected a function .* is not a callable object"),
        ("math.sqrt", "is .*; it cannot be made of a model and its hyper-parameters: must be real number, not Conv4"),
        ("own_learners.raising", "is .*; it cannot be made of a model and its hyper-parameters: unsupported operand"),
        (".", "is '.'; expected MODULE.NAME that Python finds from here"),
        ("own_learners.three", ""),
    ],
)
def test_what_makes_no_learner_is_told(name, words, tmp_path, monkeypatch):
    (tmp_path / "own_learners.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_learners", raising=False)
    config = glyphs_config()
    message = f"^learner.name {words}" if words else "what own_learners.three returns is 3; expected a cx.MetaLearner$"
    with pytest.raises(UserError, match=message) as error:
        config.learner = learner_config(name)
        check(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import no_such_package", "importing own_learner gave ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "importing own_learner gave ZeroDivisionError: division by zero"),
        ("", "own_learner has no f"),
        (None, "Python finds no module own_learner from here"),
    ],
)
def test_an_error_inside_a_learner_of_the_users_own_is_told(content, words, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_learner", raising=False)
    if content is not None:
        (tmp_path / "own_learner.py").write_text(content)
    with pytest.raises(UserError, match=f"^learner.name is 'own_learner.f'; {words}$"):
        factories.learner_factory("own_learner.f")
