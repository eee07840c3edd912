"""A first block that takes its images in parts is the same block."""

import jax
import pytest
from derivatives import assert_close, derivatives, random

from cxgrad_jax import platforms
from cxgrad_jax.models import _fused
from cxgrad_jax.models._conv4 import Block

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.slow
@pytest.mark.parametrize(("images", "channels", "parts"), [(6, 3, 3), (7, 1, 7), (6, 5, 1)])
def test_a_first_block_in_parts_is_the_same(images, channels, parts, monkeypatch):
    """A block that divides its images, as if the caches held little; with many channels it does not."""
    x = random(0, images, 8, 6, channels)
    block = Block(features=4, norm="batch", use_bias=False, negative_slope=0.01, norm_epsilon=1e-5, precision="highest")
    params = jax.tree.map(lambda leaf: leaf + 0.1 * random(1, *leaf.shape), block.init(jax.random.key(0), x))

    def ours(params, x):
        return block.apply(params, x)

    whole = derivatives(ours, params, x)
    monkeypatch.setattr(_fused, "PART_BYTES", 2 * 8 * 6 * 4 * 8)
    jax.clear_caches()
    maps = jax.ShapeDtypeStruct((images, 8, 6, 4), x.dtype)
    assert _fused.num_parts(x, maps) == parts
    with platforms.traced_for("tpu"):
        assert _fused.num_parts(x, maps) == 1
    assert_close(derivatives(ours, params, x), whole, rtol=1e-10)
