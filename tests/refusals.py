"""What users get wrong, as a table: a name, the command line, words of the one line that answers, and what was spoilt.

A command line has these abbreviations:

- ``{new}``: the flags of a tiny run in ``{folder}/run``; ``{fields}``: the same without ``--workdir``;
- ``{again}``: the same flags, where ``{folder}/run`` is a copy of a finished run;
- ``{evaluate}``: the flags that evaluate such a copy;
- ``{config}``: the flags of a run that ``{folder}/config.py`` configures;
- ``{configs}``: the folder of the repository's configurations.

A line that starts with ``data_prep`` prepares data. ``official LEARNER NAME`` reads official parameters that consist of
one array of this name. ``spoil`` says what the last column means; its paths start below ``{folder}``.
"""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from runs import flags

CONFIGS = Path(__file__).parents[1] / "configs"
IMPORTS = "from cxgrad_jax.training.config import *; from ml_collections import ConfigDict\n"
IMAGES = "data_prep image_folder --source {folder}/images --as_name mine --data_dir {folder}/data"
NEWEST = "run/checkpoints/16"
DAMAGED = "checkpoints/16 is damaged ("

REFUSALS: list[tuple[Any, ...]] = [
    # The command line.
    ("unknown flag", "{new} --iterations=5", "argument --iterations is unknown; did you mean"),
    ("stray argument", "{new} fast", "argument fast is unknown; --help"),
    ("unknown field", "{new} --config.train.iteration=5",
     "--config.train.iteration is unknown; did you mean --config.train.iterations?"),
    ("number for whole number", "{new} --config.train.iterations=1.5",
     "--config.train.iterations: '1.5' is not a whole"),
    ("text for whole number", "{new} --config.episode.way=five", "--config.episode.way: 'five' is not a whole"),
    ("text for number", "{new} --config.learner.inner_lr=high", "--config.learner.inner_lr: 'high' is not a finite"),
    ("number for true or false", "{new} --config.learner.remat=2", "--config.learner.remat: '2' is not true or false"),
    ("text for whole numbers", "--config={configs}/mini_1shot_resnet12.py --config.model.channels=big",
     "--config.model.channels: 'big' is not whole numbers"),
    ("flag without value", "{new} --config.seed", "--config.seed: expected one argument"),
    ("unknown mode", "{new} --mode=test", "--mode: invalid choice: 'test' (choose from"),
    ("empty workdir", "{fields} --workdir=", "--workdir: the path is empty; expected a path"),
    ("empty configuration", "{fields} --config=", "--config: '' is neither a file nor the name of a configuration"),
    ("folder that is not UTF-8", "{fields} --workdir={folder}/\udcff", "has a name that is not UTF-8, and checkpoints"),
    # The configuration's file.
    ("get_config ends the program", "{config}", "config.py, line 3: SystemExit: 0",
     ("write", f"{IMPORTS}def get_config():\n  raise SystemExit(0)", "config.py")),
    ("no such configuration", "--config=configs/none.py",
     "configs/none.py is neither a file nor the name of a configuration; "),
    ("syntax error", "{config}", "config.py, line 2: SyntaxError: invalid syntax",
     ("write", f"{IMPORTS}def get_config(:", "config.py")),
    ("no get_config", "{config}", "config.py defines no get_config(); see configs/",
     ("write", f"{IMPORTS}config = 1", "config.py")),
    ("get_config raises", "{config}", "config.py, line 3: ZeroDivisionError: division",
     ("write", f"{IMPORTS}def get_config():\n  1 / 0", "config.py")),
    ("get_config gives a dict", "{config}", "returns a dict; expected a ConfigDict",
     ("write", IMPORTS + "def get_config():\n  return {}", "config.py")),
    ("unknown preset", "--config={configs}/mini_1shot.py:foo --workdir={folder}/run",
     "preset 'foo' is unknown; write --config=FILE:PRESET with one of paper"),
    ("new field in a file", "{config}", "train.learningrate is not a field; did you mean train.learning_rate?",
     ("write", f"{IMPORTS}def get_config():\n  c = base_config(); c.train.learningrate = 1.0; return c", "config.py")),
    ("section of a file without a field", "{config}",
     "episode.query is missing in the configuration; expected a whole number",
     ("write", f"{IMPORTS}def get_config():\n  c = base_config(); c.episode = ConfigDict(dict(way=2.5)); return c",
      "config.py")),
    # Values of the configuration.
    ("learner of another name", "{new} --config.learner.name=maml",
     "query_statistics, remat; to use another learner, name a configuration file that has it: --config=FILE"),
    ("model of another name", "{new} --config.model.name=resnet12",
     "model.channels of resnet12 is missing in the configuration; expected whole numbers with commas between; to use "
     "another model, name a configuration file that has it: --config=FILE"),
    ("unknown learner", "{new} --config.learner.name=reptile",
     "learner.name is 'reptile'; expected one of alfa, anil, baseline_plus_plus,"),
    ("unknown norm", "{new} --config.model.norm=instance", "model.norm is 'instance'; expected one of batch, layer"),
    ("negative rate", "{new} --config.train.learning_rate=-1.0", "train.learning_rate is -1.0; expected a positive"),
    ("rate that is no number", "{new} --config.learner.context_lr=nan", "learner.context_lr is nan; expected a finite"),
    ("one class", "{new} --config.episode.way=1", "episode.way is 1; expected at least 2"),
    ("more ways than classes", "{new} --config.episode.way=7", "way is 7, but tiny, split train has 6 classes"),
    ("more shots than images", "{new} --config.episode.shot=4",
     "shot + query is 4 + 2 = 6, but the smallest class of tiny"),
    ("images too small", "{new} --config.data.image_size=8",
     "data.image_size is 8: images have shape [2, 8, 8, 3]; expected [N, H, W, C] with H and W at least 16"),
    ("unknown data set", "{new} --config.data.name=omniglott", "unknown data set 'omniglott'; did you mean omniglot?"),
    ("data set not prepared", "{new} --config.data.name=cub",
     "run `python -m data_prep cub --download --image_size 16"),
    ("size not prepared", "{new} --config.data.image_size=20", "tiny is not prepared in"),
    ("test images of other channels", "{new} --config.evaluation.data=omniglot",
     "evaluation.data is 'omniglot', whose images have other channels"),
    ("too many devices", "{new} --config.parallel.num_devices=9", "parallel.num_devices is 9, but 4 are visible"),
    ("devices that do not divide the tasks", "{new} --config.parallel.num_devices=4",
     "train.meta_batch is 2, not a multiple of the 4 devices"),
    ("chunk that does not divide the tasks", "{new} --config.parallel.tasks_per_chunk=3",
     "parallel.tasks_per_chunk is 3; expected a divisor of the 2 tasks"),
    ("no TensorBoard", "{new} --config.train.tensorboard=True", "needs tensorboardX: pip install 'cxgrad_jax[tensorb"),
    # The run's folder.
    ("workdir is a file", "{new}", "cannot be written: File exists", ("write", "", "run")),
    ("workdir below a file", "--workdir={folder}/file/run {fields}", "Not a directory", ("write", "", "file")),
    ("workdir in use", "{again}", "run is in use by another run; wait for it", ("occupy",)),
    ("workdir of another configuration", "{again} --config.train.meta_batch=4 --config.seed=1",
     "(seed: 1, not 0; train.meta_batch: 4, not 2); choose another folder: --workdir="),
    ("config.json cut short", "{again}", "config.json is damaged (Expecting value",
     ("write", '{"seed":', "run/config.json")),
    ("config.json of something else", "{again}", "config.json is damaged (", ("write", "[1]", "run/config.json")),
    ("config.json with a wrong type", "{evaluate}", "config.json: train.meta_batch is '2'; expected a whole number",
     ("edit", "train", "meta_batch", "2")),
    ("checkpoints without config.json", "{again}", "has checkpoints but no config.json", ("remove", "run/config.json")),
    ("checkpoint's arrays cut short", "{again}", DAMAGED, ("cut", f"{NEWEST}/default/d/*")),
    ("checkpoint's arrays removed", "{again}", "delete that folder to go on from the one",
     ("remove", f"{NEWEST}/default/d/*")),
    ("checkpoint's arrays changed", "{again}", DAMAGED, ("flip", f"{NEWEST}/default/d/*")),
    ("checkpoint's manifest cut short", "{again}", DAMAGED, ("cut", f"{NEWEST}/default/manifest.ocdbt")),
    ("checkpoint's metadata cut short", "{again}", DAMAGED, ("cut", f"{NEWEST}/default/_METADATA")),
    ("checkpoint's accuracy cut short", "{evaluate}", DAMAGED, ("cut", f"{NEWEST}/metrics/metrics")),
    ("checkpoint's accuracy removed", "{evaluate}", DAMAGED, ("remove", f"{NEWEST}/metrics/metrics")),
    # Evaluation.
    ("evaluating nothing", "--workdir={folder}/run --mode=evaluate",
     "config.json does not exist; expected the folder"),
    ("evaluating before a checkpoint", "{evaluate}", "checkpoints has no checkpoint; train",
     ("remove", "run/checkpoints")),
    ("evaluating another configuration", "{evaluate} --config.train.meta_batch=9 --config.evaluation.episodes=3",
     "holds a run of another configuration (train.meta_batch: 9, not 2)"),
    ("evaluating with a configuration file", "{evaluate} --config={configs}/glyphs_1shot.py",
     "data.image_size: 28, not 16; data.name: 'glyphs', not 'tiny'; "),
    ("evaluating on images of other channels", "{evaluate} --config.evaluation.data=omniglot",
     "evaluation.data is omniglot, whose images have 1 channel(s), other than those of tiny, on which"),
    ("evaluating on an unknown data set", "{evaluate} --config.evaluation.data=moon",
     "unknown data set 'moon'; expected one of"),
    # Preparing data.
    ("archive that is none", "data_prep mini_imagenet --archive {folder}/images.zip --data_dir {folder}/data",
     "images.zip cannot be read as", ("write", "no zip", "images.zip")),
    ("archive cut short", "data_prep cifar_fs --archive {folder}/x.tar.gz --data_dir {folder}/data",
     "x.tar.gz cannot be read as", ("write", "\x1f\x8b\x08", "x.tar.gz")),
    ("archive that is not there", "data_prep cub --archive {folder}/none.tgz --data_dir {folder}", "none.tgz"),
    ("folder without val", IMAGES, "val is missing; expected",
     ("write", "no image", "images/train/a/0.png", "images/test/c/0.png")),
    ("damaged image", IMAGES, "a/0.png",
     ("write", "no image", "images/train/a/0.png", "images/val/b/0.png", "images/test/c/0.png")),
    ("class in two splits", IMAGES, "in both train and val",
     ("write", "no image", "images/train/a/0.png", "images/val/a/0.png", "images/test/c/0.png")),
    ("class without images", IMAGES, "train/a holds no .bmp",
     ("write", "no image", "images/train/a/0.txt", "images/val/b/0.png", "images/test/c/0.png")),
    # Official parameters.
    ("official name that is none", "official cxgrad conv0.weight", "'conv0.weight' is not in the official"),
    ("official parameters missing", "official cxgrad classifier.layer_dict.conv0.conv.weight",
     "is missing; is it a complete cxgrad checkpoint?"),
    ("official learner that is none", "official leo x", "learner 'leo' has no official format here"),
]  # fmt: skip


def prepare(command: str, data: Path, finished: Path, folder: Path) -> list[str]:
    """The arguments that ``command`` stands for; copies the finished run to ``folder/run`` where it names the copy."""
    if "{again}" in command or "{evaluate}" in command:
        shutil.copytree(finished, folder / "run")
    workdir, *fields = flags(data, folder / "run")
    new = " ".join([workdir, *fields])
    return command.format(
        new=new, again=new, evaluate=f"{workdir} --mode=evaluate", fields=" ".join(fields), folder=folder,
        configs=CONFIGS, config=f"--config={folder / 'config.py'} {workdir}",
    ).split()  # fmt: skip


def spoil(folder: Path, *what: str) -> None:
    """Changes one thing below ``folder``."""
    match what:
        case "write", text, *paths:
            for path in paths:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="latin-1")
        case "edit", section, field, value:  # of the run's configuration
            config = json.loads((folder / "run/config.json").read_text())
            config[section][field] = value
            (folder / "run/config.json").write_text(json.dumps(config))
        case ("occupy",):  # until this process ends
            fcntl.flock(os.open(folder / "run/.lock", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
        case "cut", pattern:  # in half
            (path,) = folder.glob(pattern)
            os.truncate(path, path.stat().st_size // 2)
        case "flip", pattern:  # one bit
            (path,) = folder.glob(pattern)
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        case "remove", pattern:
            (path,) = folder.glob(pattern)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        case _:
            raise ValueError(what)
