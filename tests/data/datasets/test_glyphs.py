"""The embedded data set: splits, determinism, legible and distinct characters, one-line mistakes."""

import hashlib
import subprocess
import sys
import unicodedata

import matplotlib
import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageFilter

from cxgrad_jax.data._store import SPLITS
from cxgrad_jax.data.datasets import glyphs
from cxgrad_jax.errors import UserError

CHARACTERS = "".join(glyphs.load_splits().values())


def digest(characters: str, image_size: int) -> str:
    """A fingerprint of all the images of some characters."""
    images = [glyphs.draw(c, n, image_size) for c in characters for n in range(glyphs.IMAGES_PER_CLASS)]
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


def test_splits_are_disjoint_complete_and_mix_the_scripts():
    splits = glyphs.load_splits()
    assert tuple(splits) == SPLITS
    assert [len(splits[split]) for split in SPLITS] == [182, 45, 57]
    assert len(set(CHARACTERS)) == len(CHARACTERS)
    scripts = [{unicodedata.name(c).split()[0] for c in splits[split]} for split in SPLITS]
    assert scripts[0] == scripts[1] == scripts[2] == {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "DIGIT"}


@pytest.mark.slow_except("28")
@pytest.mark.parametrize("image_size", [28, 84])
def test_examples_have_their_names_shape_and_count(image_size):
    examples = list(glyphs.examples("val", image_size))
    assert len(examples) == 45 * glyphs.IMAGES_PER_CLASS
    assert len({(class_name, file_name) for class_name, file_name, _ in examples}) == len(examples)
    assert all(image.shape == (image_size, image_size, 3) and image.dtype == np.uint8 for _, _, image in examples)
    assert examples[0][:2] == ("U+0032_DIGIT_TWO", "00_DejaVuSans.png")
    # For 5-shot episodes with 15 queries a class, each face drawing the same share.
    assert glyphs.IMAGES_PER_CLASS >= 20 and glyphs.IMAGES_PER_CLASS % len(glyphs.FACES) == 0


def test_an_image_depends_on_nothing_but_its_arguments():
    ordered = list(glyphs.examples("val", 28))
    keys = [(c, n) for c in glyphs.load_splits()["val"] for n in range(glyphs.IMAGES_PER_CLASS)]
    for i in np.random.default_rng(0).permutation(len(keys)):
        character, number = keys[i]
        np.testing.assert_array_equal(glyphs.draw(character, number, 28), ordered[i][2])


def test_another_process_draws_the_same_bytes():
    characters = CHARACTERS[::60]
    command = [sys.executable, __file__, characters]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest(characters, 28)


def test_every_face_has_every_character():
    folder = f"{matplotlib.get_data_path()}/fonts/ttf"
    for face in glyphs.FACES:
        known = FT2Font(f"{folder}/{face}.ttf").get_charmap()
        assert not [c for c in CHARACTERS if ord(c) not in known], face


@pytest.mark.slow_except("28")
@pytest.mark.parametrize("image_size", [28, 84])
def test_nothing_is_cut_off(image_size):
    """The outermost pixels are ground: on the light side of grey, though the ink is dark. Every image has ink."""
    characters = CHARACTERS if image_size == glyphs.DEFAULT_IMAGE_SIZE else CHARACTERS[::8]
    for character in characters:
        for number in range(glyphs.IMAGES_PER_CLASS):
            grey = glyphs.draw(character, number, image_size).mean(-1)
            border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
            # Ground is at least 195 - 24 (shading) - 12 (noise), ink at most 60 + 24 + 12.
            assert border.min() > 159 and grey.min() < 159, (character, number)


def test_the_distortion_varies():
    """Within one face, the ink's bounding box changes in size, place and proportions from image to image."""
    boxes = []
    for number in range(0, glyphs.IMAGES_PER_CLASS, len(glyphs.FACES)):
        for character in CHARACTERS[::10]:
            ink = glyphs.draw(character, number, 84).mean(-1) < 128
            rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
            boxes.append((rows[0], columns[0], rows[-1] - rows[0], columns[-1] - columns[0]))
    boxes = np.array(boxes).reshape(glyphs.IMAGES_PER_CLASS // len(glyphs.FACES), -1, 4)
    top, left, height, width = boxes.std(0).mean(0)
    assert min(top, left, height, width) > 3
    assert (boxes[..., 2] / boxes[..., 3]).std(0).mean() > 0.1


def normalised(face: str, character: str) -> np.ndarray:
    """The undistorted character without size and place, and with half of its elongation: float32 [32, 32]."""
    ink = glyphs.glyph(face, character, 64)
    width, height = (round(28 * (side / max(ink.size)) ** 0.5) for side in ink.size)
    canvas = Image.new("L", (32, 32))
    canvas.paste(ink.resize((width, height), Image.Resampling.BOX), ((32 - width) // 2, (32 - height) // 2))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.7)), np.float32)


def unit(images: np.ndarray) -> np.ndarray:
    """Centred and of length one, so that a product of two is their correlation: [N, H, W] -> [N, H * W]."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def likeness(characters: str) -> np.ndarray:
    """The highest correlation of each two characters, over faces and shifts by a pixel: [N, N], 0 with itself."""
    images = np.stack([normalised(face, c) for face in glyphs.FACES for c in characters])
    vectors, faces, count = unit(images), len(glyphs.FACES), len(characters)
    best = np.zeros((count, count), np.float32)
    for down, right in np.ndindex(3, 3):
        shifted = unit(np.roll(images, (down - 1, right - 1), axis=(1, 2)))
        best = np.maximum(best, (shifted @ vectors.T).reshape(faces, count, faces, count).max((0, 2)))
    return np.maximum(best, best.T) * (1 - np.eye(count, dtype=np.float32))


# What a character shares with itself: a quarter of the pairs of faces draw it with a correlation above this.
# The nearest characters below the bound, such as 6/\u0182 or \u03a8/\u03c6, still differ by a stroke.
LOOK_ALIKE = 0.88


def test_no_two_classes_look_alike():
    alike = likeness(CHARACTERS)
    pairs = [(CHARACTERS[i], CHARACTERS[j], alike[i, j]) for i, j in np.argwhere(np.triu(alike > LOOK_ALIKE))]
    assert not pairs


@pytest.mark.parametrize("pair", ["Ww", "Zz", "K\u041a", "I\u026a", "3\u0437", "T\u03c4"])
def test_look_alikes_would_be_found(pair):
    assert likeness(pair)[0, 1] > LOOK_ALIKE


@pytest.mark.parametrize(("split", "image_size", "named"), [("dev", 28, "'dev'"), ("test", 8, "image_size=8")])
def test_bad_arguments_are_named(split, image_size, named):
    with pytest.raises(UserError, match=named) as error:
        next(glyphs.examples(split, image_size))
    assert "\n" not in str(error.value)


def test_a_missing_face_or_character_is_named(monkeypatch):
    with pytest.raises(UserError, match="U\\+4E00_CJK_UNIFIED_IDEOGRAPH-4E00 in the font .*DejaVuSans.ttf"):
        glyphs.check_face("DejaVuSans", "A\u4e00")
    monkeypatch.setattr(glyphs, "FACES", ("DejaVuSans", "NoSuchFace"))
    with pytest.raises(UserError, match="NoSuchFace.ttf") as error:
        next(glyphs.examples("test", 28))
    assert "\n" not in str(error.value)


if __name__ == "__main__":  # the other process of test_another_process_draws_the_same_bytes
    print(digest(sys.argv[1], 28))
