"""A run keeps to its images: others of the same name are refused, wherever the run is used again."""

import shutil

import numpy as np
import pytest
from runs import flags, told

import cxgrad_jax as cx
from cxgrad_jax import compare
from cxgrad_jax.command_line import Parser, override
from cxgrad_jax.data import _layout
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import write_json
from cxgrad_jax.main import run
from cxgrad_jax.report.comparison import compare as compare_configs
from cxgrad_jax.training.config_files import load_config
from cxgrad_jax.training.images_of_run import DATA_FILE, check_same_images, description

IMAGES = np.random.default_rng(0).integers(20, 230, (12, 8, 8, 3)).astype(np.uint8)
STORE = cx.data.from_arrays(IMAGES, np.arange(12) // 3, name="mine", split="test")
CHANGED = "mine, split test, has other images than when"


def note(stores, workdir):
    write_json(workdir / DATA_FILE, check_same_images(stores, workdir))


def test_the_same_images_and_new_names_are_taken(tmp_path):
    note([STORE], tmp_path)
    before = (tmp_path / DATA_FILE).read_text()
    note([STORE], tmp_path)
    assert (tmp_path / DATA_FILE).read_text() == before
    other = STORE._replace(name="another", images=255 - STORE.images)
    assert set(check_same_images([STORE, other], tmp_path)) == {"mine/test", "another/test"}
    assert (tmp_path / DATA_FILE).read_text() == before
    note([other, STORE._replace(split="val")], tmp_path)
    assert set(check_same_images([], tmp_path)) == {"mine/test", "another/test", "mine/val"}


def test_another_decoder_of_jpeg_is_the_same(tmp_path):
    note([STORE], tmp_path)
    noise = np.random.default_rng(1).integers(-2, 3, IMAGES.shape)
    check_same_images([STORE._replace(images=(IMAGES + noise).astype(np.uint8))], tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        STORE._replace(images=255 - IMAGES),
        STORE._replace(images=np.roll(IMAGES, 3, axis=0)),
        STORE._replace(class_names=("0", "1", "2", "9")),
        STORE._replace(offsets=np.array([0, 2, 6, 9, 12], np.int32)),
        STORE._replace(images=IMAGES[:9], offsets=STORE.offsets[:4], class_names=STORE.class_names[:3]),
        STORE._replace(images=IMAGES[:, :4]),
    ],
    ids=["inverted", "another order", "a name", "sizes", "a class less", "shape"],
)
def test_other_images_are_refused(tmp_path, other):
    note([STORE], tmp_path)
    before = (tmp_path / DATA_FILE).read_text()
    with pytest.raises(cx.UserError, match=CHANGED):
        check_same_images([other], tmp_path)
    assert (tmp_path / DATA_FILE).read_text() == before


@pytest.mark.parametrize("content", ["", "[1]", '{"mine/test": 3}', '{"mine/test": {"classes": "x"}}', "[" * 20_000])
def test_a_damaged_file_is_one_line(tmp_path, content):
    kept = description(STORE)["classes"]
    (tmp_path / DATA_FILE).write_text(content.replace('"x"', f'"{kept}"'))
    with pytest.raises(cx.UserError, match=rf"{DATA_FILE} is damaged \(.*\); remove it") as error:
        check_same_images([STORE], tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture
def prepared_again(tiny_data, tmp_path):
    """The folder of data in which "tiny" has other test images."""
    root = tmp_path / "data"
    shutil.copytree(tiny_data, root)
    path = _layout.array_path(_layout.location("tiny", 16, root), "test")
    np.save(path, 255 - np.load(path))
    return root


def test_a_run_refuses_data_that_were_prepared_again(finished, tiny_data, prepared_again, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    before = {path: path.read_bytes() for path in workdir.glob("*.json*")}
    assert workdir / DATA_FILE in before
    analyse = [f"--workdir={workdir}", "--mode=analyse", "--config.analysis.perplexity=3"]
    extended = [*flags(prepared_again, workdir), "--config.train.iterations=18"]
    for words in (
        flags(prepared_again, workdir),
        extended,
        [f"--workdir={workdir}", "--mode=evaluate", f"--config.data.dir={prepared_again}"],
        [*analyse, f"--config.data.dir={prepared_again}"],
    ):
        assert run(words) == 2
        (line,) = told(capsys.readouterr().err)
        assert "tiny, split test, has other images than when" in line and "--config.evaluation.data=NAME" in line
    assert {path: path.read_bytes() for path in workdir.glob("*.json*")} == before


def test_a_comparison_refuses_configurations_with_different_images_of_one_name(tiny_data, prepared_again, tmp_path):
    configs = {}
    for name, data_dir in (("here", tiny_data), ("there", prepared_again)):
        configs[name] = load_config("configs/baselines/proto_net.py")
        given = [flag for flag in flags(data_dir, tmp_path)[1:] if "learner." not in flag]
        override(configs[name], given, Parser(add_help=False))
    with pytest.raises(UserError, match="^there: tiny, split test, has other images here than for here, and their"):
        compare_configs(configs, tmp_path)
    assert not list(tmp_path.glob("*here"))


def test_a_comparison_refuses_runs_of_other_images(finished, prepared_again, tmp_path, capsys):
    name = "glyphs_1shot"
    shutil.copytree(finished, tmp_path / name)
    words = ["--configs", name, *flags(prepared_again, tmp_path)]
    assert compare.run([word for word in words if "context_dim" not in word]) == 2
    assert "tiny, split test, has other images than when" in told(capsys.readouterr().err)[-1]
