"""Splits: near-duplicates on one side, every class present, nothing seen that is held out."""

import numpy as np
import pytest
from small_features import photos_with_twins, unit

from cxgrad_jax.photos._held_out import held_out_logits, near_duplicates, same_in_two_classes, splits


def test_twins_are_one_group():
    features, labels, scenes = photos_with_twins()
    groups = near_duplicates(features, labels)
    assert (groups[:, None] == groups).tolist() == (scenes[:, None] == scenes).tolist()


def test_a_class_that_looks_all_alike_is_divided_by_more_likeness():
    angle = np.arccos(0.92)
    turned = [(np.cos(i * angle), np.sin(i * angle)) for i in (0, 1, 0.02)]
    features = unit(np.array([(*pair, 0) for pair in turned] + [(0, 0, 1)]))
    assert near_duplicates(features, np.array([0, 0, 0, 1])).tolist() == [0, 1, 0, 3]
    assert near_duplicates(features[[0, 2]], np.array([0, 0])).tolist() == [0, 0]  # twins stay twins


def test_the_same_photo_in_two_classes_is_a_pair():
    features, labels, _ = photos_with_twins()
    assert same_in_two_classes(features, labels) == []
    features[[13, 30, 31]] = features[2]  # another class, a third class twice
    assert same_in_two_classes(features, labels) == [(2, 13), (2, 30), (2, 31), (13, 30), (13, 31)]


def test_groups_are_held_out_as_a_whole_and_once():
    features, labels, _ = photos_with_twins(scenes=5)
    groups = near_duplicates(features, labels)
    for split in splits(labels, groups, seed=0):
        held_once = np.zeros(len(labels), int)
        for seen, held in split.pairs():
            assert not (seen & held).any() and not set(groups[seen]) & set(groups[held])
            assert set(labels[seen]) == {0, 1, 2} and sorted(np.bincount(labels[held])) == [3, 3, 3]
            held_once += held
        assert (held_once == 1).all()


def test_a_class_of_one_is_never_held_out():
    labels = np.array([0, 0, 0, 1])
    for split in splits(labels, np.arange(4), seed=0):
        assert split.folds[3] == -1 and sorted(split.folds[:3]) == [0, 1, 2]
    assert splits(np.array([0, 1]), np.arange(2), seed=0) == []
    assert splits(np.array([0, 0, 1, 1]), np.array([0, 0, 2, 2]), seed=0) == []


def test_there_are_at_most_ten_folds_and_the_seed_decides():
    labels = np.repeat(np.arange(3), 15)
    first, again, other = (splits(labels, np.arange(45), seed)[0].folds for seed in (0, 0, 1))
    assert first.max() == 9 and (first == again).all() and (first != other).any()


def test_held_out_logits_are_of_heads_that_did_not_see_the_photo():
    rng = np.random.default_rng(0)
    features, labels = unit(rng.normal(size=(40, 30))), np.arange(40) % 2  # nothing to learn
    parts = splits(labels, np.arange(40), seed=0)
    logits = held_out_logits("logistic", 100.0, features, labels, parts)
    right = (logits.argmax(-1) == labels).mean()
    assert logits.shape == (len(parts), 40, 2) and right == pytest.approx(0.5, abs=0.25)
