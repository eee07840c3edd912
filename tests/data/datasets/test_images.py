import io

import numpy as np
import pytest
from PIL import Image

from cxgrad_jax.data.datasets.images import ink_pixels, open_image, rgb_pixels, shown_pixels
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


def png(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_sixteen_bits_of_grey_become_eight():
    grey = np.array([[0, 257], [40000, 65535]], np.uint16)
    image = open_image(png(Image.fromarray(grey)), "1.png")
    np.testing.assert_array_equal(rgb_pixels(image, 2)[..., 0], [[0, 1], [156, 255]])


DRAWING = np.zeros((8, 8), np.uint8)
DRAWING[2:5, 3:6] = 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "RGB", "I;16"])
def test_transparent_parts_lie_on_white(mode):
    """Black ink, and transparent black around it, in every way that a PNG may say so."""
    alpha = Image.fromarray(DRAWING)
    options = {}
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (8, 8))
        image.putalpha(alpha)
    elif mode == "P":
        image = Image.fromarray((DRAWING > 0).astype(np.uint8), "P")
        image.putpalette([0] * 768)
        options = {"transparency": 0}
    elif mode == "I;16":
        image, options = Image.fromarray(np.where(DRAWING, 0, 1000).astype(np.uint16)), {"transparency": 1000}
    else:  # one colour is transparent; for one bit it is white, else nearly black
        image = Image.fromarray(np.where(DRAWING, 0, 255 if mode == "1" else 1).astype(np.uint8)).convert(mode)
        options = {"transparency": (1, 1, 1) if mode == "RGB" else 1}
    shown = shown_pixels(open_image(png(image, **options), "1.png"), 8)
    np.testing.assert_array_equal(shown, np.repeat(255 - DRAWING[..., None], 3, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_photographs_are_turned_upright(orientation, kind):
    """EXIF orientation, as a camera writes it; https://exiftool.org/TagNames/EXIF.html, tag 0x0112."""
    stored = {  # from upright pixels [H, W, C] to stored ones
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x.transpose(1, 0, 2)[::-1],
        7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    }
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[16:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    pixels = np.ascontiguousarray(stored[orientation](upright))
    Image.fromarray(pixels).save(buffer, kind, exif=exif, quality=95)
    shown = shown_pixels(open_image(buffer.getvalue(), "1"), 32)
    assert np.abs(shown.astype(int) - upright)[2:14, 2:14].max() < 12
    assert np.abs(shown.astype(int) - upright)[18:30, 2:14].max() < 12
    assert np.abs(shown.astype(int) - upright)[2:14, 18:30].max() < 12


@pytest.mark.parametrize("mode", ["1", "P", "CMYK"])
def test_the_users_images_become_rgb_before_they_are_resized(mode, make):
    image = Image.fromarray(make.pixels(3)).convert(mode)
    expected = image.convert("RGB").resize((11, 11), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(shown_pixels(image, 11), np.asarray(expected))


def test_mutated_images_are_images_or_one_line(make):
    rng = np.random.default_rng(0)
    sources = [make.encode(make.pixels(1), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")]
    refused = 0
    for trial in range(400):
        data = bytearray(sources[trial % len(sources)])
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(256)
        try:
            assert shown_pixels(open_image(bytes(data[: rng.integers(1, len(data) + 1)]), "a.png"), 8).shape == (
                8,
                8,
                3,
            )
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused < 400


def test_an_image_of_too_many_pixels_is_told_in_pixels():
    with pytest.raises(UserError, match=r"^ape/1.png has 200 million pixels; make it smaller than 179 million or re"):
        open_image(png(Image.new("1", (16320, 12240))), "ape/1.png")
