"""A learner told as plain values, and made of them again."""

import json

import jax
import numpy as np
import pytest

import cxgrad_jax as cx
from cxgrad_jax.learners import described, from_spec

RESNET12 = cx.models.ResNet12(3, channels=(2, 2, 4, 4), norm="layer")


def own_labels(path, leaf):
    return "adapted" if "head" in path else "meta"


class Wide(cx.models.Conv4):
    """A model of one's own."""


def own_learner(model, *, inner_lr=0.1):
    def adapt(params, support_images, support_labels):
        return cx.learners.Adapted(params["model"], {})

    return cx.learners.gradient_based(model, adapt)


@pytest.mark.parametrize("name", cx.learners.NAMES)
def test_every_learner_is_told_and_made_again(name):
    model = RESNET12 if name == "maml" else cx.models.Conv4(3, features=4, norm="layer")
    learner = getattr(cx.learners, name)(model)
    assert learner.spec["learner"] == name and learner.spec["undescribed"] == []
    fields = {"channels": [2, 2, 4, 4]} if name == "maml" else {"features": 4}
    assert learner.spec["model"]["class"] == type(model).__name__
    assert fields.items() <= learner.spec["model"]["fields"].items()
    again = from_spec(json.loads(json.dumps(learner.spec)))
    assert again.spec == learner.spec
    images = np.zeros((3, 16, 16, 3), np.uint8)
    shapes, theirs = (jax.eval_shape(each.init, jax.random.key(0), images) for each in (again, learner))
    assert shapes == theirs
    changed = ", ".join(f"{field}={value}" for field, value in fields.items())
    assert repr(again) == repr(learner) == f"{name}({type(model).__name__}(num_classes=3, {changed}, norm='layer'))"


def test_hyper_parameters_are_all_told_and_repr_shows_the_unusual():
    learner = cx.learners.cxgrad(cx.models.Conv4(5), inner_lr=np.float64(0.05), num_steps=np.int64(3))  # pyright: ignore
    expected = {
        "inner_lr": 0.05, "context_lr": 1.0, "num_steps": 3, "context_dim": 100, "first_order": False,
        "context_update": "task", "differentiate_first_context": False, "remat": False,
        "param_labels": "default_labels",
    }  # fmt: skip
    assert {key: learner.spec["hyper_parameters"][key] for key in expected} == expected
    assert repr(learner) == "cxgrad(Conv4(num_classes=5), inner_lr=0.05, num_steps=3)"


def test_what_is_the_caller_s_own_is_named_and_not_made_again():
    named = cx.learners.maml(cx.models.Conv4(3), param_labels=own_labels)
    assert named.spec["hyper_parameters"]["param_labels"] == named.spec["undescribed"][0] == f"{__name__}.own_labels"
    wide = cx.learners.maml(Wide(3))
    assert wide.spec["model"]["class"] == wide.spec["undescribed"][0] == f"{__name__}.Wide"
    assert wide.spec["model"]["fields"]["num_classes"] == 3
    described = cx.learners.described(own_learner)(cx.models.Conv4(3), inner_lr=0.2)
    assert described.spec["learner"] == f"{__name__}.own_learner"
    assert described.spec["hyper_parameters"] == {"inner_lr": 0.2}
    assert repr(described) == f"{__name__}.own_learner(Conv4(num_classes=3), inner_lr=0.2)"
    for learner in (named, wide, described):
        json.dumps(learner.spec)
        with pytest.raises(cx.UserError, match="is not part of this package; give the learner itself"):
            from_spec(learner.spec)
    plain = own_learner(cx.models.Conv4(3))
    assert plain.spec == {} and "own_learner" in repr(plain)
    with pytest.raises(cx.UserError, match="the learner is not described"):
        from_spec(plain.spec)


@pytest.mark.parametrize(
    "change",
    [
        {"learner": "os.system"},
        {"learner": "from_spec"},
        {"model": {"class": "Norm", "fields": {}}},
        {"model": {"class": "Conv4", "fields": {"num_classes": 3, "colour": 1}}},
        {"hyper_parameters": {"colour": 1}},
        {"hyper_parameters": {"param_labels": "split_by_label"}},
    ],
)
def test_unknown_names_are_refused_and_nothing_is_imported(change):
    spec = cx.learners.maml(cx.models.Conv4(3)).spec | change
    with pytest.raises(cx.UserError, match="version of cxgrad_jax") as error:
        from_spec(spec)
    assert "\n" not in str(error.value)


def test_a_learner_stays_a_plain_tuple_of_functions():
    learner = cx.learners.maml(cx.models.Conv4(3))
    assert {learner: 1}[learner] == 1 and learner == learner._replace(spec=dict(learner.spec))
    init, adapt, predict, loss, spec = learner
    assert learner._replace(loss=loss) == learner and spec is learner.spec
    assert cx.MetaLearner(init, adapt, predict, loss).spec == {}


def test_a_factory_with_further_keywords():
    @described
    def mine(model, **options):
        return cx.learners.maml(model, **options)

    learner = mine(cx.models.Conv4(num_classes=2, features=2), num_steps=2)
    assert learner.spec["hyper_parameters"] == {"num_steps": 2}
    with pytest.raises(cx.UserError, match="num_steps is 0; expected at least 1"):
        mine(cx.models.Conv4(num_classes=2, features=2), num_steps=0)


def test_a_misspelt_hyper_parameter_is_told_with_those_that_there_are():
    with pytest.raises(cx.UserError, match="maml: got an unexpected keyword argument 'lr'; .* keyword inner_lr, num"):
        cx.learners.maml(cx.models.Conv4(3), lr=0.1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(cx.UserError, match="maml: too many positional arguments; expected a model"):
        cx.learners.maml(cx.models.Conv4(3), 0.1)  # pyright: ignore[reportCallIssue]


def test_what_is_no_spec_is_refused():
    whole = cx.learners.maml(cx.models.Conv4(3)).spec
    for wrong in ("x", {"learners": "maml"}, {"learner": "maml"}, whole | {"model": "Conv4"}):
        with pytest.raises(cx.UserError, match="^spec (is|has no) .*expected"):
            from_spec(wrong)  # pyright: ignore[reportArgumentType]
