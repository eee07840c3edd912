import numpy as np
import pytest

from cxgrad_jax.data import ImageStore, from_arrays, split_classes, with_rotations
from cxgrad_jax.episodes import sampler
from cxgrad_jax.errors import UserError


def test_rotations_are_classes_of_their_own():
    images = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3, 1)
    store = ImageStore(images, np.array([0, 2, 5], np.int32), ("a", "b"), "mine", "val")
    turned = with_rotations(store)
    assert (turned.name, turned.split) == ("mine", "val")
    assert turned.num_classes == 8 and turned.smallest_class == 2
    assert turned.class_names == tuple(f"{name}/rot{angle}" for angle in (0, 90, 180, 270) for name in "ab")
    for k in range(4):
        for c in range(2):
            first, last = turned.offsets[2 * k + c : 2 * k + c + 2]
            expected = np.stack([np.rot90(image, k) for image in images[store.offsets[c] : store.offsets[c + 1]]])
            np.testing.assert_array_equal(turned.images[first:last], expected)


def store_of(sizes):
    """A store whose images are their class number."""
    images = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)[:, None, None, None]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return ImageStore(images, offsets, tuple(f"c{c}" for c in range(len(sizes))), "mine")


def test_split_classes_share_no_class_and_lose_none():
    store = store_of([2, 3, 1, 4, 5, 2, 2, 6, 1, 3])
    parts = split_classes(store, seed=3)
    assert [part.num_classes for part in parts] == [6, 2, 2]
    assert [(part.name, part.split) for part in parts] == [("mine", split) for split in ("train", "val", "test")]
    names = [name for part in parts for name in part.class_names]
    assert sorted(names) == sorted(store.class_names)
    for part in parts:
        assert part.offsets.dtype == np.int32 and len(part.images) == part.offsets[-1]
        for c, name in enumerate(part.class_names):
            images = part.images[part.offsets[c] : part.offsets[c + 1]]
            assert (images == int(name[1:])).all()
            assert len(images) == np.diff(store.offsets)[int(name[1:])]


def test_split_classes_follows_the_seed_alone():
    store = store_of([1] * 30)
    one, again, other = (split_classes(store, seed).test.class_names for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize("num_classes", [3, 4, 7, 100])
@pytest.mark.parametrize("fractions", [(0.64, 0.16, 0.20), (0.98, 0.01, 0.01), (0.01, 0.01, 0.98)])
def test_every_split_has_a_class(num_classes, fractions):
    parts = split_classes(store_of([1] * num_classes), 0, fractions)
    assert min(part.num_classes for part in parts) >= 1 and sum(part.num_classes for part in parts) == num_classes


@pytest.mark.parametrize(
    "fractions",
    [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (np.nan, 0.5, 0.5), 0.8, None, ("a", "b", "c")],
)
def test_fractions_that_are_no_shares_are_named(fractions):
    with pytest.raises(UserError, match="fractions is .*; expected three positive numbers that sum to 1"):
        split_classes(store_of([1] * 9), 0, fractions)


def test_two_classes_cannot_be_split():
    with pytest.raises(UserError, match="2 classes cannot be split into train, val and test; expected 3 or more"):
        split_classes(store_of([1, 1]), 0)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"images": [[[[0]]]] * 12}, "store.images is of type list; expected an array"),
        ({"offsets": np.array([0, 8, 4, 12], np.uint32)}, "offsets do not divide 12 images among 3 classes"),
    ],
)
def test_stores_made_by_hand_are_checked(change, line):
    store = from_arrays(np.zeros((12, 4, 4, 1), np.uint8), np.arange(12) // 4)
    with pytest.raises(UserError, match=line):
        sampler(store._replace(**change), way=2, shot=1, query=1)
