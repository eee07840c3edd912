"""The memory of a training, told before it is trained."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from runs import flags

from cxgrad_jax import main, parallel
from cxgrad_jax.data._layout import location
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import ahead_of_time
from cxgrad_jax.training.config import glyphs_config
from cxgrad_jax.training.dry_run import _training_images, largest


def lines_of(output: str) -> list[list[str]]:
    return [re.split(r" {2,}", line, maxsplit=1) for line in output.splitlines()]


@pytest.mark.parametrize(("memory", "most"), [(100, 12), (99, 11), (60, 4), (59, 3), (45, 1), (44, 0), (10, -6)])
def test_the_largest_meta_batch_follows_the_line_also_below_the_asked_one(memory, most):
    assert largest(memory, 4, 60, 80) == most  # five bytes a task


@pytest.mark.slow
def test_it_tells_the_memory_and_writes_nothing(tiny_data, tmp_path, capsys):
    assert main.run([*flags(tiny_data, tmp_path / "run"), "--dry_run"]) == 0
    *lines, last = lines_of(capsys.readouterr().out)
    told = dict(lines)
    assert re.fullmatch(r"\d+\.\d MB, with the optimiser's state \d+\.\d MB", told["parameters"])
    assert told["store"] == "0.0 MB, on the host" and told["temporaries"].endswith("4 task(s) a device")
    assert told["largest"] == "not known: the device does not report its memory"
    assert last == ["This is the compiler's analysis; nothing ran."]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "channels", "rotated", "images", "classes"),
    [
        ("cifar_fs", 3, False, 38_400, 64),
        ("omniglot", 1, True, 82_240, 4112),
        ("tiered_imagenet", 3, False, 448_695, 351),
    ],
)
def test_data_that_are_not_prepared_are_as_published(name, channels, rotated, images, classes, tmp_path, capsys):
    config = glyphs_config()
    config.data.update({"name": name, "image_size": 28, "dir": str(tmp_path), "rotated_classes": rotated})
    store = _training_images(config)
    assert store.images.shape == (images, 28, 28, channels) and store.images.nbytes == images * 28 * 28 * channels
    assert store.num_classes == classes and store.offsets[-1] == images
    assert f"{name} is not prepared here; its {images:,} training images" in capsys.readouterr().out


def test_data_that_are_damaged_or_unknown_are_refused(tmp_path):
    config = glyphs_config()
    config.data.update({"name": "cifar_fs", "image_size": 32, "dir": str(tmp_path)})
    location("cifar_fs", 32, tmp_path).mkdir(parents=True)
    with pytest.raises(UserError, match="is damaged"):
        _training_images(config)
    config.data.name = "own"
    with pytest.raises(UserError, match="unknown data set 'own'"):
        _training_images(config)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [0, 1])
def test_where_it_does_not_fit_one_task_after_the_other_is_told(at_once, tiny_data, tmp_path, capsys, monkeypatch):
    """The device that is not here is a CPU, whose memory is ample or far too small."""
    given = [*flags(tiny_data, tmp_path / "run", parallel__tasks_per_chunk=at_once), "--dry_run=small"]
    monkeypatch.setattr(main, "mesh_of", lambda _: Mesh(np.array(jax.devices()[:1]), (parallel.TASK_AXIS,)))
    for memory in (1 << 40, 1 << 16):
        monkeypatch.setattr(ahead_of_time, "memory_of", lambda _, memory=memory: memory)
        assert main.run(given) == 0
        lines = lines_of(capsys.readouterr().out)
        temporaries = [text for name, *rest in lines if name == "temporaries" for text in rest]
        (largest,) = [rest[0] for name, *rest in lines if name == "largest"]
        fits = memory > 1 << 30
        assert re.match(r"meta-batch \d{3,} " if fits else "none fits in 0.0 MB", largest)
        assert len(temporaries) == (3 if at_once == 0 and not fits else 2)
    assert temporaries[-1].endswith(" with parallel.tasks_per_chunk=1") == (at_once == 0)
