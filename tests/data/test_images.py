import io

import numpy as np
import pytest
from PIL import Image

from cxgrad_jax.data.datasets.images import ink_pixels, open_image, rgb_pixels
from cxgrad_jax.errors import UserError


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_rgb_resizes_first_and_converts_second(make, mode):
    image = Image.fromarray(make.pixels(0)).convert(mode)
    expected = np.asarray(image.resize((11, 11), Image.Resampling.BICUBIC).convert("RGB"))
    result = rgb_pixels(image, 11)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)
    if mode == "P":  # the order shows: converting first gives other pixels
        other = np.asarray(image.convert("RGB").resize((11, 11), Image.Resampling.BICUBIC))
        assert (other != expected).any()


def test_right_size_is_left_alone(make):
    array = make.pixels(1, 16, 16)
    np.testing.assert_array_equal(rgb_pixels(Image.fromarray(array), 16), array)


def test_ink_is_255_and_thin_strokes_survive():
    paper = Image.new("1", (105, 105), 1)
    for y in range(105):
        paper.putpixel((50, y), 0)  # one column of ink, which nearest neighbour would drop
    ink = ink_pixels(paper, 28)
    assert ink.shape == (28, 28, 1)
    assert ink[:, :10].max() == 0
    assert ink[:, 12:15].max() > 50


@pytest.mark.parametrize("damage", [lambda data: b"<html>404</html>", lambda data: data[:-200], lambda data: b""])
def test_unreadable_image_is_named(make, damage):
    data = make.encode(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), "JPEG")
    with pytest.raises(UserError, match=r"ape/1\.jpg is not a readable image"):
        open_image(damage(data), "ape/1.jpg")


def test_sixteen_bits_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(buffer, "PNG")
    with pytest.raises(UserError, match=r"1\.png has more than 8 bits"):
        open_image(buffer.getvalue(), "1.png")
