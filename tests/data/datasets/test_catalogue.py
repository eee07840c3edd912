from itertools import combinations

import pytest

from cxgrad_jax import data
from cxgrad_jax.data.datasets import catalogue, cifar_fs, cub, glyphs, mini_imagenet, omniglot, tiered_imagenet
from cxgrad_jax.errors import UserError

LISTS = {
    "mini_imagenet": mini_imagenet.file_lists,
    "tiered_imagenet": tiered_imagenet.class_lists,
    "cifar_fs": cifar_fs.class_lists,
    "cub": cub.class_lists,
    "omniglot": omniglot.class_lists,
    "glyphs": glyphs.load_splits,
}


@pytest.mark.parametrize("name", LISTS)
def test_class_lists_are_complete_and_disjoint(name):
    lists = {split: set(LISTS[name]()[split]) for split in data.SPLITS}
    assert tuple(len(lists[split]) for split in data.SPLITS) == catalogue.CATALOGUE[name].classes
    assert tuple(len(LISTS[name]()[split]) for split in data.SPLITS) == catalogue.CATALOGUE[name].classes
    assert not any(lists[a] & lists[b] for a, b in combinations(data.SPLITS, 2))


def test_ravi_lists_name_600_files_a_class():
    lists = mini_imagenet.file_lists()
    assert {len(set(names)) for split in data.SPLITS for names in lists[split].values()} == {600}
    assert lists["train"]["n01532829"][:2] == ["n0153282900000005.jpg", "n0153282900000006.jpg"]
    assert lists["val"]["n01855672"][0] == "n0185567200000003.jpg"
    assert lists["test"]["n01930112"][:3] == [f"n019301120000000{i}.jpg" for i in (1, 4, 5)]


def test_glyphs_facts_follow_the_drawing():
    facts = catalogue.CATALOGUE["glyphs"]
    assert facts.image_size == glyphs.DEFAULT_IMAGE_SIZE
    assert facts.classes is not None
    assert facts.images.startswith(f"{glyphs.IMAGES_PER_CLASS * sum(facts.classes):,} ")


def test_unknown_name_tells_the_nearest():
    with pytest.raises(UserError, match=r"unknown data set 'cifarfs'; did you mean cifar_fs\?"):
        catalogue.facts("cifarfs")
