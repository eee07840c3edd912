"""Glyphs, the embedded data set: characters of several scripts, drawn with the fonts that matplotlib ships.

A class is a character. Its images differ in the face (sans, mono and serif, regular and bold), an affine distortion
(rotation, shear, stretch, size, place), colours, a shading and noise. ``splits/glyphs.json`` has the characters of each
split. No two of them, in any split, look alike at the same size and place.

Nothing is downloaded: an image is a pure function of (character, image number, image size).
"""

import functools
import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from cxgrad_jax.data.datasets import facts
from cxgrad_jax.data.datasets.archives import Files, Index
from cxgrad_jax.data.datasets.images import rgb_pixels
from cxgrad_jax.errors import UserError

DEFAULT_IMAGE_SIZE = 28
FACTS = facts.Facts(
    title="Glyphs, the embedded data set: characters drawn with the fonts of matplotlib; needs no archive",
    classes=(182, 45, 57),
    images="8,520 (30 a class)",
    image_size=DEFAULT_IMAGE_SIZE,
    channels=3,
    resize="drawn at the size asked for",
    origin="drawn by cxgrad_jax.data.datasets.glyphs",
    version="1.0.0",  # to be raised whenever a pixel or a split changes
)
SMALLEST_IMAGE_SIZE = 16
IMAGES_PER_CLASS = 30

# These are the upright faces of one family. All of them have every character of the splits, so classes differ in their
# shapes and not in the faces that happen to draw them.
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
)

pixels = rgb_pixels

_SEED = 1
_SUPERSAMPLING = 2
_MARGIN = 1 / 28  # the share of the image's side that is kept free of ink all around


def load_splits() -> dict[str, str]:
    """The characters of each split, as one string per split, sorted by code point."""
    return facts.class_lists("glyphs")


def index(files: Files, image_size: int) -> Index:
    """Lists the images of all splits. They need no files, and are drawn when they are read."""
    found: Index = {}
    for split, characters in load_splits().items():
        check_drawable(split, image_size)
        found[split] = {
            class_name(character): {
                f"{number:02d}_{face_of(number)}.png": functools.partial(draw, character, number, image_size)
                for number in range(IMAGES_PER_CLASS)
            }
            for character in characters
        }
    return found


def examples(split: str, image_size: int = DEFAULT_IMAGE_SIZE) -> Iterator[tuple[str, str, np.ndarray]]:
    """Draws the images of one split, class by class.

    Args:
      split: "train", "val" or "test".
      image_size: the side S in pixels.

    Yields:
      (class_name, file_name, image): a name such as "U+0416_CYRILLIC_CAPITAL_LETTER_ZHE", the image's file name within
      its class, and a uint8 [S, S, 3] array.

    Raises:
      UserError: the split is unknown, the image size is too small, or matplotlib lacks a face or a character.
    """
    check_drawable(split, image_size)
    for character in load_splits()[split]:
        for number in range(IMAGES_PER_CLASS):
            yield class_name(character), f"{number:02d}_{face_of(number)}.png", draw(character, number, image_size)


def check_drawable(split: str, image_size: int) -> None:
    """Refuses a split that cannot be drawn.

    Raises:
      UserError: the split is unknown, the image size is too small, or matplotlib lacks a face or a character.
    """
    splits = load_splits()
    if split not in splits:
        raise UserError(f"glyphs has no split {split!r}; expected one of {', '.join(splits)}")
    if image_size < SMALLEST_IMAGE_SIZE:
        raise UserError(f"glyphs cannot be told apart at image_size={image_size}; use {SMALLEST_IMAGE_SIZE} or more")
    for face in FACES:
        check_face(face, splits[split])


def class_name(character: str) -> str:
    """The code point and the Unicode name, safe as a folder's name: "U+0416_CYRILLIC_CAPITAL_LETTER_ZHE"."""
    return f"U+{ord(character):04X}_{unicodedata.name(character).replace(' ', '_')}"


def face_of(number: int) -> str:
    """The face that draws image ``number`` of every class. Each face draws the same share."""
    return FACES[number % len(FACES)]


def check_face(face: str, characters: str) -> None:
    """Makes sure that a face has all the characters. FreeType would silently draw a box for one that it lacks.

    Raises:
      UserError: matplotlib lacks the face, or the face lacks a character.
    """
    import matplotlib
    from matplotlib.ft2font import FT2Font

    mend = f"matplotlib {matplotlib.__version__} lacks it, install one that has it (3.11 does)"
    path = _face_path(face)
    if not path.is_file():
        raise UserError(f"glyphs needs the font {path}: {mend}")
    known = FT2Font(str(path)).get_charmap()
    for character in characters:
        if ord(character) not in known:
            raise UserError(f"glyphs needs the character {class_name(character)} in the font {path}: {mend}")


def draw(character: str, number: int, image_size: int) -> np.ndarray:
    """Draws one image. Its randomness comes from the character and the number alone.

    Args:
      character: one character that the face has.
      number: the number of the image in its class, 0 to IMAGES_PER_CLASS - 1.
      image_size: the side S in pixels.

    Returns:
      uint8 [S, S, 3].
    """
    rng = np.random.default_rng((_SEED, ord(character), number))
    ink = _distort(glyph(face_of(number), character, 2 * image_size), rng, image_size)
    return _colour(ink, rng)


@functools.lru_cache(maxsize=2 * len(FACES))  # classes are drawn one after the other, so the last few glyphs suffice
def glyph(face: str, character: str, font_size: int) -> Image.Image:
    """The undistorted character as an 8-bit image of its ink, cut to the ink's bounding box."""
    font = _font(face, font_size)
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, fill=255, font=font)
    return image.crop(image.getbbox())


def _distort(ink: Image.Image, rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Places the ink's box by a random affine map that keeps all of it inside the margin: float32 [S, S] in [0, 1]."""
    angle = math.radians(rng.uniform(-15, 15))
    shear, stretch = rng.uniform(-0.2, 0.2), math.exp(rng.uniform(-0.15, 0.15))
    cos, sin = math.cos(angle), math.sin(angle)
    # rotation @ [[1, shear], [0, 1]] @ diag(stretch, 1 / stretch)
    a, b = cos * stretch, (cos * shear - sin) / stretch
    c, d = sin * stretch, (sin * shear + cos) / stretch

    # The distorted box is scaled to a random share of the free frame, then moved within the remainder.
    width, height = abs(a) * ink.width + abs(b) * ink.height, abs(c) * ink.width + abs(d) * ink.height
    side = image_size * _SUPERSAMPLING
    frame = side * (1 - 2 * _MARGIN)
    scale = frame * rng.uniform(0.8, 1.0) / max(width, height)
    free_x, free_y = frame - scale * width, frame - scale * height
    centre_x, centre_y = side / 2 + free_x * rng.uniform(-0.5, 0.5), side / 2 + free_y * rng.uniform(-0.5, 0.5)

    # Pillow wants the map from the output to the input. The border lets the interpolation fade out at the edges.
    border = 2
    ink = ImageOps.expand(ink, border)
    det = scale * (a * d - b * c)
    a, b, c, d = d / det, -b / det, -c / det, a / det
    x, y = ink.width / 2 - a * centre_x - b * centre_y, ink.height / 2 - c * centre_x - d * centre_y
    ink = ink.transform((side, side), Image.Transform.AFFINE, (a, b, x, c, d, y), Image.Resampling.BILINEAR)
    return np.asarray(ink.reduce(_SUPERSAMPLING), np.float32) / 255


def _colour(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints dark ink on a light, shaded, noisy ground: uint8 [S, S, 3]."""
    paint, ground = rng.uniform(0, 60, 3), rng.uniform(195, 255, 3)
    image = ground + ink[:, :, None] * (paint - ground)

    ramp = np.linspace(-1, 1, len(ink))
    shade_x, shade_y = rng.uniform(-12, 12, 2)
    image += (shade_x * ramp[None, :] + shade_y * ramp[:, None])[:, :, None]
    image += rng.uniform(-12, 12, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=2 * len(FACES))
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout gives the same pixels whether or not Pillow finds the Raqm library.
    return ImageFont.truetype(_face_path(face), size, layout_engine=ImageFont.Layout.BASIC)


def _face_path(face: str) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
