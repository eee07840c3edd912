"""Depthwise and strided convolutions on a CPU against XLA's own, in value and derivatives."""

import pytest
from derivatives import assert_close, derivatives, random
from jax import lax

from cxgrad_jax.models._depthwise import depthwise_convolution, strided_convolution


@pytest.mark.slow_except("True-3-1-shape0", "False-3-2-shape1")
@pytest.mark.parametrize(
    ("size", "stride", "shape"), [(3, 1, (2, 7, 8)), (3, 2, (1, 6, 5)), (5, 2, (1, 8, 7)), (5, 1, (1, 2, 3))]
)
@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.usefixtures("double_precision")
def test_values_and_derivatives_are_those_of_xla(size, stride, shape, depthwise):
    channels = 4 if depthwise else 3
    x, kernel = random(0, *shape, channels), random(1, size, size, 1 if depthwise else channels, 4)
    ours = depthwise_convolution if depthwise else strided_convolution

    def reference(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels if depthwise else 1,
        )  # fmt: skip

    assert_close(derivatives(lambda x, kernel: ours(x, kernel, stride), x, kernel), derivatives(reference, x, kernel))
