"""Folders and photos: what is found, how it is seen, what is refused in one line."""

import errno
import io
import os

import numpy as np
import pytest
from pictures import folder_of_shapes
from PIL import Image

import cxgrad_jax as cx
from cxgrad_jax.photos import (
    Preprocessing,
    _preprocessing,
    labelled_photos,
    photos_and_left_out,
    photos_in,
    thumbnail,
)
from cxgrad_jax.photos._features import colour_histogram, each_photo
from cxgrad_jax.photos._preprocessing import read_views, views_of

SMALL = Preprocessing(32, views=("middle", "whole"))


def test_classes_are_folders(tmp_path):
    root = folder_of_shapes(tmp_path / "photos", 2)
    (root / "circle" / "note.txt").write_text("x")
    (root / "circle" / ".hidden.jpg").write_text("x")
    (root / "circle" / "more").mkdir()
    (root / "readme.md").write_text("x")
    (root / "square" / "0.jpg").rename(root / "square" / "A.JPEG")
    found = labelled_photos(root)
    assert found.class_names == ("circle", "square", "triangle") and found.labels == (0, 0, 1, 1, 2, 2)
    assert [path.name for path in found.paths[2:4]] == ["1.jpg", "A.JPEG"]
    assert sorted(path.name for path in found.left_out) == ["more", "note.txt", "readme.md"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda root: root.rename(root.with_name("gone")), "is not there; expected PHOTOS/CLASS"),
        (lambda root: [path.unlink() for path in (root / "square").iterdir()], "square holds no photo"),
        (lambda root: [path.rename(root.parent / path.name) for path in (root / "square", root / "triangle")],
         "holds one class, circle; expected PHOTOS/CLASS"),
        (lambda root: [path.rename(root.parent / path.name) for path in list(root.iterdir())], "holds no class"),
    ],
)  # fmt: skip
def test_folders_that_are_refused(change, line, tmp_path):
    root = folder_of_shapes(tmp_path / "photos", 1)
    change(root)
    with pytest.raises(cx.UserError) as error:
        labelled_photos(root)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_what_may_not_be_looked_at_is_told(tmp_path, monkeypatch):
    root, stat = folder_of_shapes(tmp_path / "photos", 1), os.stat

    def forbidden(path, *given, **options):  # as a user finds it; root may look at everything
        if "square" in os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return stat(path, *given, **options)

    monkeypatch.setattr(os, "stat", forbidden)
    for look in (
        lambda: labelled_photos(root),
        lambda: photos_in(root / "square" / "0.jpg"),
        lambda: labelled_photos(root / "square"),
        lambda: cx.load(root / "square" / "x.safetensors"),
    ):
        with pytest.raises(cx.UserError, match="square.* cannot be read: Permission denied$"):
            look()


def test_photos_in_files_and_folders(tmp_path):
    root = folder_of_shapes(tmp_path, 2)
    names = [path.name for path in photos_in([root / "square" / "1.jpg", root])]
    assert names == ["1.jpg", "0.jpg", "1.jpg", "0.jpg", "1.jpg", "0.jpg", "1.jpg"]
    assert photos_in(str(root / "square" / "1.jpg")) == [root / "square" / "1.jpg"]
    for place, line in ((root / "none.jpg", "is not there"), (tmp_path / "empty", "holds no photo")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(cx.UserError, match=line):
            photos_in(place)


def test_links_to_folders_are_followed_and_other_files_are_told(tmp_path):
    root = folder_of_shapes(tmp_path / "new", 1)
    (tmp_path / "elsewhere").mkdir()
    (root / "square" / "0.jpg").rename(tmp_path / "elsewhere" / "far.jpg")
    (root / "away").symlink_to(tmp_path / "elsewhere")
    (root / "circle" / "back").symlink_to(root)
    (root / "a").symlink_to(root / "triangle")  # its photos count once, by the name of their own folder
    for name in ("one.heic", "square/two.avif", ".hidden", "circle/.DS_Store"):
        (root / name).write_text("")
    found, left_out = photos_and_left_out(root)
    assert [str(path.relative_to(root)) for path in found] == ["away/far.jpg", "circle/0.jpg", "triangle/0.jpg"]
    assert [path.name for path in left_out] == ["one.heic", "two.avif"] and photos_in(root) == found


def halves(width=60, height=40):
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height))
    return image


def test_a_turned_photo_is_seen_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    halves().save(tmp_path / "turned.jpg", exif=exif, quality=95)
    seen = read_views(tmp_path / "turned.jpg", SMALL)[0]
    assert seen[4, 16, 0] > 200 and seen[-4, 16, 2] > 200  # red is above now


def test_middle_and_whole(tmp_path):
    middle, whole = views_of(halves(80, 40), SMALL)
    assert middle.shape == (32, 32, 3) and middle[16, 2, 0] == 255 and middle[16, -2, 2] == 255
    assert (whole[2] == 127).all() and whole[16, 2, 0] == 255


@pytest.mark.parametrize("size", [(80, 40), (41, 90), (1500, 1001), (37, 37), (2000, 3), (32, 32), (5000, 900)])
@pytest.mark.parametrize("strip", [1 << 24, 3000])
def test_the_whole_photo_has_the_pixels_of_a_square_that_is_resized(size, strip, monkeypatch):
    monkeypatch.setattr(_preprocessing, "STRIP", strip)
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for image, grey in ((Image.fromarray(pixels), (127, 127, 127)), (Image.fromarray(pixels[..., 0].copy()), 127)):
        square = Image.new(image.mode, (max(size), max(size)), grey)
        square.paste(image, ((max(size) - width) // 2, (max(size) - height) // 2))
        expected = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC))
        assert (np.asarray(_preprocessing._whole(image, 32)) == expected).all()


@pytest.mark.parametrize("size", [(24000, 300), (300, 24000), (70000, 20)])
def test_a_very_long_photo_takes_little_memory(size, monkeypatch):
    image, made, new = Image.new("RGB", size, "red"), [], Image.new
    monkeypatch.setattr(Image, "new", lambda mode, size, *given: made.append(size) or new(mode, size, *given))
    whole = views_of(image, SMALL)[1]
    assert max(width * height for width, height in made) <= 1 << 24  # 64 MB, where the square would have 2.3 GB
    assert (whole[0, 0] == 127).all() and whole[16, 16, 0] > 127


def test_memory_that_does_not_suffice_is_told_of_the_photo(tmp_path, monkeypatch):
    folder_of_shapes(tmp_path, 1, kinds=("circle",))

    def without_memory(*_):
        raise MemoryError

    monkeypatch.setattr(_preprocessing, "views_of", without_memory)
    with pytest.raises(cx.UserError, match=r"circle/0.jpg takes more memory than there is; make it smaller or remove"):
        read_views(tmp_path / "circle" / "0.jpg", SMALL)
    monkeypatch.setattr(Image.Image, "thumbnail", without_memory)
    with pytest.raises(cx.UserError, match=r"0.jpg takes more memory"):
        thumbnail(tmp_path / "circle" / "0.jpg")


def test_transparent_grey_tiny_and_palette_photos(tmp_path):
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert (read_views(tmp_path / "clear.png", SMALL) == 255).all()
    Image.fromarray(np.full((20, 30), 30000, np.uint16)).save(tmp_path / "grey16.png")
    assert (np.abs(read_views(tmp_path / "grey16.png", SMALL)[0].astype(int) - 117) < 2).all()
    Image.new("RGB", (1, 1), "red").save(tmp_path / "tiny.png")
    assert (read_views(tmp_path / "tiny.png", SMALL)[0] == (255, 0, 0)).all()
    Image.new("RGB", (3, 500), "red").convert("P").save(tmp_path / "thin.gif")
    assert read_views(tmp_path / "thin.gif", SMALL).shape == (2, 32, 32, 3)
    grey = SMALL._replace(channels=1)
    assert read_views(tmp_path / "tiny.png", grey).shape == (2, 32, 32, 1)


def test_a_large_jpeg_is_seen_as_if_it_were_decoded_whole(tmp_path):
    small = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    large = Image.fromarray(small).resize((1800, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    expected = views_of(large, SMALL).astype(int)
    assert np.abs(read_views(tmp_path / "large.jpg", SMALL) - expected).max() < 12


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "it is empty"), (b"not a picture", "it is not a JPEG"), ("half", "truncated")]
)
def test_unreadable_photos_get_one_line(content, reason, tmp_path):
    if content == "half":
        file = io.BytesIO()
        halves(300, 300).save(file, "JPEG")
        content = file.getvalue()[: len(file.getvalue()) // 2]
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(cx.UserError) as error:
        read_views(tmp_path / "bad.jpg", SMALL)
    assert reason in str(error.value) and "bad.jpg" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_file_is_refused_without_waiting(link, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("/dev/zero")
    place = tmp_path / ("link.jpg" if link else "pipe.jpg")
    with pytest.raises(cx.UserError, match=r".jpg is not a file but a folder, a pipe or a device; replace or"):
        read_views(place, SMALL)


def test_a_file_that_no_photo_has_is_refused(tmp_path):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(100_000_001)
    with pytest.raises(cx.UserError, match=r"huge.jpg has 100,000,001 bytes; make it smaller than 100,000,000"):
        read_views(tmp_path / "huge.jpg", SMALL)


@pytest.mark.filterwarnings("error")
def test_large_photos_are_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    for number in range(40):
        halves(120, 80).convert("1").save(tmp_path / f"{number}.png")
    views = list(each_photo(lambda path: read_views(path, SMALL), sorted(tmp_path.iterdir())))
    assert len(views) == 40 and all(getattr(each, "shape", None) == (2, 32, 32, 3) for each in views)


def test_a_thumbnail_is_small_and_whole(tmp_path):
    halves(900, 300).save(tmp_path / "wide.png")
    image = Image.open(io.BytesIO(thumbnail(tmp_path / "wide.png", 120)))
    assert image.size == (120, 40) and image.format == "JPEG"


def test_a_colour_histogram_knows_colours_alone():
    red, blue = (colour_histogram(np.full((8, 8, 3), colour, np.uint8)) for colour in ((255, 0, 0), (0, 0, 255)))
    mixed = colour_histogram(np.asarray(halves()))
    assert red.shape == (128,) and red @ blue == 0 and mixed @ red == pytest.approx(mixed @ blue, abs=0.01)
    assert np.linalg.norm(mixed) == pytest.approx(1)
    assert colour_histogram(np.zeros((8, 8, 1), np.uint8)).sum() == 1
