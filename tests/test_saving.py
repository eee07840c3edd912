"""Digests notice every change."""

import numpy as np

from cxgrad_jax import saving


def test_digest_notices_values_shapes_names_and_dtypes():
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    variants = [
        base,
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].astype(np.float64)},
        {"a": base["a"], "c": base["b"]},
        {**base, "b": np.nextafter(base["b"], np.float32(2))},
    ]
    assert len({saving.params_sha256(variant) for variant in variants}) == len(variants)
    assert saving.params_sha256(base) == saving.params_sha256(dict(reversed(base.items())))
