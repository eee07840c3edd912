"""What a classifier promises: chance where there is nothing to learn, no more than comes, nothing from one photo."""

import numpy as np
import pytest
from small_features import clusters, photos_with_twins, unit

from cxgrad_jax.photos._estimate import fit_and_estimate, grown, wilson
from cxgrad_jax.photos._familiarity import (
    auroc,
    auroc_of_left_out_classes,
    familiarity,
    held_out_familiarity,
    prototypes,
    threshold,
)  # fmt: skip
from cxgrad_jax.photos._held_out import splits

NAMES = ("cup", "hat", "shoe")


def estimate(features, labels, head="auto"):
    nothing = unit(np.ones((len(labels), 4)))
    return fit_and_estimate(features, nothing, labels, NAMES, head, seed=0)


def test_the_promise_comes_true():
    features, labels = clusters(3000, spread=0.9)
    seen = np.arange(60)
    fitted = estimate(features[seen], labels[seen])
    received = (fitted.head.logits(features[60:]).argmax(1) == labels[60:]).mean()
    low, high = fitted.estimate.interval or (1, 0)
    assert low <= received <= high and 0.5 < received < 0.99
    sure = fitted.head.probabilities(features[60:]).max(1).mean()
    assert sure == pytest.approx(received, abs=0.1)
    assert fitted.estimate.histogram == pytest.approx(1 / 3, abs=0.2) and fitted.estimate.is_worth_it


def test_twins_do_not_make_the_promise_higher():
    features, labels, _ = photos_with_twins()  # each scene is unlike all others, so there is nothing to learn
    told = estimate(features, labels).estimate
    assert told.accuracy is not None and told.accuracy < 0.6
    assert told.groups == dict.fromkeys(NAMES, 4) and told.photos == dict.fromkeys(NAMES, 12)
    low, high = told.interval or (0, 0)
    assert high - low > 0.4  # twelve independent photos, not thirty-six


def test_one_photo_a_class_promises_nothing():
    features, labels = clusters(3)
    told = estimate(features, labels).estimate
    assert told.accuracy is told.interval is told.auroc is None and not told.is_worth_it
    assert told.note.startswith("no estimate can be made: one photo a class")
    twins = np.concatenate([features, features])
    assert "near-duplicates" in estimate(twins, np.tile(labels, 2)).estimate.note


def test_a_class_of_one_is_told():
    features, labels = clusters(31)
    kept = np.flatnonzero((labels != 2) | (np.arange(31) == 2))
    told = estimate(features[kept], labels[kept]).estimate
    assert told.per_class["shoe"] is None and "no estimate can be made of shoe" in told.note
    assert told.per_class["cup"] == pytest.approx(1, abs=0.3)


def test_always_naming_the_largest_class_is_a_rival():
    features, labels = clusters(90, spread=0.9)
    few = np.flatnonzero((labels == 0) | (np.arange(90) < 12))  # 30 cups, 4 hats, 4 shoes
    told = estimate(features[few], labels[few]).estimate
    assert told.photos == {"cup": 30, "hat": 4, "shoe": 4} and told.largest == pytest.approx(30 / 38)
    assert told._replace(accuracy=0.78, histogram=0.5).is_worth_it is False
    assert told._replace(accuracy=0.8, histogram=0.5).is_worth_it is True
    earlier = told._replace(largest=None, most_frequent=None)
    assert earlier._replace(accuracy=0.78, histogram=0.5).is_worth_it is True


def test_the_largest_class_is_the_one_with_most_photos():
    features, labels = clusters(60)
    kept = np.flatnonzero((labels == 0) | (np.arange(60) < 24))  # 20 cups, 8 hats, 8 shoes
    labels, features = labels[kept], features[kept]
    features[labels == 0] = features[0]  # no cup can be held out
    told = estimate(features, labels).estimate
    assert told.per_class["cup"] is None and told.largest == 0 and told.most_frequent == pytest.approx(0.5)
    assert told._replace(accuracy=0.45, histogram=0.1).is_worth_it is False
    assert told._replace(accuracy=0.55, histogram=0.1).is_worth_it is True


def test_of_equal_classes_none_is_the_largest():
    features, labels = clusters(30)
    features[labels == 0] = features[0]  # a class that cannot be held out
    told = estimate(features, labels).estimate
    assert told.per_class["cup"] is None and told.largest == told.chance == pytest.approx(1 / 3)


def test_features_that_are_all_zero_do_no_harm():
    features, labels = clusters(30)
    features[labels == 0] = 0
    for head in ("auto", "centroid", "logistic"):
        told = estimate(features, labels, head).estimate
        assert told.accuracy is not None and 0 <= told.accuracy <= 1


def test_equal_heads_give_the_simplest():
    features, labels = clusters(30)
    assert estimate(features, labels).head.kind == "centroid"
    assert estimate(features, labels, "logistic").head.kind == "logistic"


def test_a_head_that_is_better_is_taken():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    common = 3 * rng.normal(size=(90, 2))  # says nothing, and turns the cosines
    features = unit(np.concatenate([np.eye(3)[labels] + 0.1 * rng.normal(size=(90, 3)), common], axis=1))
    assert estimate(features, labels).head.kind == "logistic"


def test_the_accuracy_grows_with_the_photos_but_not_from_nothing():
    assert grown(0.5, 0.1, 1.0) == pytest.approx(0.5)
    assert grown(0.55, 0.1, 0.5) == pytest.approx(0.1 + 0.9 * 2**0.5 / (1 + 2**0.5))
    assert grown(0.1, 0.1, 0.5) == 0.1 and grown(0.05, 0.1, 0.5) == 0.05 and grown(1.0, 0.1, 0.5) == 1


def test_wilsons_interval():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_auroc_counts_pairs():
    assert auroc(np.array([3, 4]), np.array([1, 2])) == 1
    assert auroc(np.array([1, 1]), np.array([1, 1])) == 0.5
    assert auroc(np.array([1.0, 3.0]), np.array([2.0])) == 0.5


def test_familiarity_knows_strangers():
    features, labels = clusters(60, classes=4)
    known = labels < 3
    like = prototypes(features[known], labels[known])
    assert auroc(familiarity(features[known], like), familiarity(features[~known], like)) > 0.9
    part = splits(labels, np.arange(60), seed=0)[0]
    area = auroc_of_left_out_classes(features, labels, part)
    assert area is not None and area > 0.9
    rng = np.random.default_rng(0)
    noise = auroc_of_left_out_classes(unit(rng.normal(size=(60, 20))), labels, part)
    assert noise == pytest.approx(0.5, abs=0.12)
    assert auroc_of_left_out_classes(features, labels % 2, part) is None


def test_the_threshold_turns_one_in_twenty_away_or_divides_best():
    known = held_out_familiarity(*clusters(60), splits(clusters(60)[1], np.arange(60), seed=0))
    limit = threshold(known, None)
    assert limit is not None and (known < limit).mean() == pytest.approx(0.05, abs=0.02)
    assert threshold(np.array([0.6, 0.7, 0.8]), np.array([0.1, 0.2])) == pytest.approx(0.4)
    assert threshold(np.zeros(0), None) is None
    assert threshold(np.zeros(0), np.linspace(0, 1, 101)) == pytest.approx(0.95)
