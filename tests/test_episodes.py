"""Episodes are pure functions of (seed, split, index), on the host as on a device."""

import hashlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.episodes import EpisodeShape, Sampler, draw_indices, draw_on_device, largest_class
from cxgrad_jax.errors import UserError

SIZES = np.array([9, 4, 7, 5, 12, 4, 6])
OFFSETS = np.concatenate([[0], np.cumsum(SIZES)]).astype(np.int32)
STORE = ImageStore(np.arange(SIZES.sum(), dtype=np.uint8)[:, None, None, None].repeat(2, 1), OFFSETS, tuple("abcdefg"))
SHAPE = EpisodeShape(way=3, shot=1, query=3)


def draw(indices, shape=SHAPE, seed=0, split="train"):
    function = jax.vmap(lambda i: draw_indices(jnp.asarray(OFFSETS), int(SIZES.max()), shape, seed, split, i))
    return [np.asarray(x) for x in jax.jit(function)(jnp.asarray(indices))]


def classes_of(positions):
    return np.searchsorted(OFFSETS, positions, side="right") - 1


@pytest.mark.parametrize("shape", [SHAPE, EpisodeShape(7, 2, 2), EpisodeShape(2, 3, 1)])
def test_images_are_distinct_and_grouped_by_class(shape):
    support, query = draw(np.arange(200), shape)
    support, query = support.reshape(200, shape.way, shape.shot), query.reshape(200, shape.way, shape.query)
    images = np.concatenate([support, query], axis=2)
    assert all(len(np.unique(episode)) == episode.size for episode in images)
    classes = classes_of(images)
    assert np.all(classes == classes[:, :, :1])
    assert all(len(np.unique(episode)) == shape.way for episode in classes[:, :, 0])


def test_every_image_comes_and_classes_come_equally_often():
    support, query = draw(np.arange(4000))
    drawn = np.bincount(np.concatenate([support, query], axis=1).reshape(-1), minlength=SIZES.sum())
    assert np.all(drawn > 0)
    frequency = np.bincount(classes_of(support).reshape(-1)) / 4000
    np.testing.assert_allclose(frequency, 3 / 7, atol=0.04)
    within = drawn / (4000 * 3 / 7 * 4 / SIZES[classes_of(np.arange(SIZES.sum()))])
    np.testing.assert_allclose(within, 1, atol=0.2)


def test_seed_split_and_index_matter_and_nothing_else():
    base = draw(np.arange(20))
    assert all(np.array_equal(a, b) for a, b in zip(base, draw(np.arange(20)), strict=True))
    assert np.array_equal(draw([7])[0][0], base[0][7])
    for other in (draw(np.arange(20), seed=1), draw(np.arange(20), split="val"), draw(np.arange(20, 40))):
        assert not np.array_equal(other[0], base[0])


def test_episodes_never_change():
    # A new jax that drew other episodes would silently change every result.
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(x, np.int32).tobytes() for x in draw(np.arange(100))))
    assert digest.hexdigest() == "37a991a3d330d9e29033fe726ecf6cc36d5eb5bb27da437ef028dbcaa09e9871"


def test_host_and_device_draw_the_same():
    host = Sampler(STORE._replace(split="test"), SHAPE, 3).batch(np.arange(5))
    images, offsets = jnp.asarray(STORE.images), jnp.asarray(OFFSETS)
    device = jax.jit(jax.vmap(lambda i: draw_on_device(images, offsets, largest_class(STORE), SHAPE, 3, "test", i)))(
        jnp.arange(5)
    )
    for ours, theirs in zip(host, device, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(host.query_labels[0], np.repeat(np.arange(3), 3))
    assert host.support_images.dtype == np.uint8 and host.support_labels.dtype == np.int32


def test_classes_of_an_episode_are_named_by_label():
    sampler = Sampler(STORE, EpisodeShape(3, 2, 1), 0)
    images = sampler(5).support_images[::2, 0, 0]  # the pixels of image i are i
    classes = classes_of(images.reshape(3, -1)[:, 0])
    assert sampler.class_names(5) == tuple("abcdefg"[c] for c in classes)


def test_a_sampler_can_be_sent_to_another_process():
    sampler = Sampler(STORE, SHAPE, 3)
    jax.tree.map(np.testing.assert_array_equal, pickle.loads(pickle.dumps(sampler))(5), sampler(5))


@pytest.fixture
def in_single_precision():
    return Sampler(STORE, SHAPE, 0).batch([0, 1])


def test_episodes_are_the_same_where_nothing_is_promoted(in_single_precision, double_precision):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        strict = Sampler(STORE, SHAPE, 0).batch([0, 1])
    jax.tree.map(np.testing.assert_array_equal, in_single_precision, strict)


def test_drawing_in_a_traced_function_is_refused():
    sampler = Sampler(STORE, SHAPE, 0)
    with pytest.raises(UserError, match="a sampler draws on the host; draw episodes outside of jax.jit"):
        jax.jit(lambda: sampler(0).support_images)()
    traced = jax.jit(lambda i: sampler(i).support_images), jax.jit(lambda i: len(sampler.class_names(i)))
    for function in traced:
        with pytest.raises(UserError, match="a sampler draws on the host"):
            function(3)
    with pytest.raises(UserError, match="a sampler draws on the host"):
        jax.jit(lambda: len(sampler.class_names(3)))()


@pytest.mark.parametrize("drawn_before", [True, False])
def test_episodes_are_the_same_with_older_draws_of_threefry(drawn_before):
    sampler = Sampler(STORE, SHAPE, 0)
    expected, offsets = sampler.batch([0, 1]), jnp.asarray(STORE.offsets)
    with jax.threefry_partitionable(False):
        again = (sampler if drawn_before else Sampler(STORE, SHAPE, 0)).batch([0, 1])
        draw = jax.jit(lambda i: draw_indices(offsets, largest_class(STORE), SHAPE, 0, STORE.split, i))
        on_device = draw(0)
    jax.tree.map(np.testing.assert_array_equal, expected, again)
    np.testing.assert_array_equal(STORE.images[np.asarray(on_device[0])], expected.support_images[0])
