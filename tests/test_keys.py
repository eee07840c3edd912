"""No two purposes share a key, and none is a key that splitting or folding the seed's key gives."""

import jax
import numpy as np

from cxgrad_jax.keys import purpose_key

PURPOSES = ("init", "episodes/train", "episodes/val", "episodes/test")


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_keys_differ_by_purpose_and_seed():
    keys = {bits(purpose_key(seed, purpose)) for seed in range(50) for purpose in PURPOSES}
    assert len(keys) == 50 * len(PURPOSES)


def test_no_key_is_near_another_in_the_tree_of_keys():
    root = jax.random.key(0, impl="threefry2x32")
    near = (
        {bits(root)}
        | {bits(jax.random.fold_in(root, i)) for i in range(100)}
        | {bits(k) for k in jax.random.split(root, 100)}
    )
    keys = [purpose_key(0, purpose) for purpose in PURPOSES]
    children = [bits(child) for key in keys for child in (key, *jax.random.split(key, 50))]
    assert not near & set(children) and len(set(children)) == len(children)


def test_keys_never_change():
    # Another key would change the numbers of every run.
    assert bits(purpose_key(0, "init")) == (3020537540, 2946840664)
