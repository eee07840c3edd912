"""Pictures that the tests draw: waves of colours as arrays, and photos of shapes in folders of classes."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "stripes")


def waves(number: int, size: int) -> np.ndarray:
    """uint8 ``[number, size, size, 3]``; the same everywhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    images = np.zeros((number, size, size, 3))
    for image in images:
        for _ in range(8):
            (fx, fy), phase, colour = rng.normal(0, 12, 2), rng.uniform(0, 6.3), rng.uniform(-1, 1, 3)
            image += np.sin(fx * x + fy * y + phase)[..., None] * colour
    return np.clip(128 + 40 * images, 0, 255).astype(np.uint8)


def shape(kind: str, rng: np.random.Generator, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A photo of a shape of some colour somewhere on a noisy ground."""
    ground = rng.integers(90, 160, 3) + rng.integers(-12, 13, (size[1], size[0], 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw, colour = ImageDraw.Draw(image), tuple(int(c) for c in rng.choice([20, 235], 3))
    r, cx, cy = int(rng.integers(22, 45)), int(rng.integers(55, 105)), int(rng.integers(50, 70))
    if kind == "circle":
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)
    elif kind == "square":
        draw.rectangle((cx - r, cy - r, cx + r, cy + r), fill=colour)
    elif kind == "triangle":
        draw.polygon(((cx - r, cy + r), (cx + r, cy + r), (cx, cy - r)), fill=colour)
    else:
        for x in range(cx - r, cx + r, 12):
            draw.rectangle((x, cy - r, x + 5, cy + r), fill=colour)
    return image


def folder_of_shapes(root: Path, photos: int, kinds: tuple[str, ...] = SHAPES[:3], seed: int = 0) -> Path:
    """Writes ``root/KIND/NUMBER.jpg``; returns ``root``."""
    rng = np.random.default_rng(seed)
    for kind in kinds:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for number in range(photos):
            shape(kind, rng).save(root / kind / f"{number}.jpg", quality=92)
    return root
