"""Pictures: files, axes, colours."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from cxgrad_jax.report.figures import FIGURES
from cxgrad_jax.report.figures.style import binned, panels, plain_numbers, save, style


def test_every_listed_figure_can_be_asked():
    assert len(set(FIGURES)) == len(FIGURES) and all(callable(figure.sections) for figure in FIGURES)


def test_a_picture_is_written_in_three_forms_and_the_same_again(tmp_path):
    def draw(folder):
        folder.mkdir()
        picture, axes = panels(1, 2, 4, 2)
        axes[0, 0].plot([1, 2], [3, 4], **style(8))
        assert isinstance(picture, Figure) and save(picture, folder, "it") == folder / "it.png"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = draw(tmp_path / "a")
    assert {name.split(".")[1]: content[:4] for name, content in first.items()} == {
        "png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xm",
    }  # fmt: skip
    assert draw(tmp_path / "b") == first


@pytest.mark.parametrize("values", [(0.68, 0.79), (0.5, 2.0), (0.3, 9.0), (0.002, 40.0)])
def test_an_axis_of_positive_values_has_plain_numbers(values):
    picture, axes = panels(1, 1, 4, 3)
    axes[0, 0].plot([0, 1], values)
    plain_numbers(axes[0, 0])
    picture.canvas.draw()
    low, high = axes[0, 0].get_ylim()
    texts = [text.get_text() for text in axes[0, 0].get_yticklabels() if low <= text.get_position()[1] <= high]
    assert len(texts) >= 3 and not any("10^" in text or "times" in text for text in texts)


def test_binned_drops_what_is_left():
    np.testing.assert_array_equal(binned(np.arange(7.0), 3), [1.0, 4.0])
