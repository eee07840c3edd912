"""The configuration of a run: its fields, their defaults, and how they are read."""

import json
from typing import TYPE_CHECKING, Any

import ml_collections

from cxgrad_jax.training import factories

if TYPE_CHECKING:  # a type checker knows nothing of the fields

    class ConfigDict(ml_collections.ConfigDict):
        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, name: str) -> Any: ...
        def get(self, key: str, default: Any = None) -> Any: ...
else:
    ConfigDict = ml_collections.ConfigDict

__all__ = [
    "base_config", "five_shot", "glyphs_config", "learner_config", "model_config", "pretrain_config",
    "pretrain_glyphs_config",
]  # fmt: skip


def base_config() -> ConfigDict:
    """The paper's protocol: CxGrad, Conv-4 with 48 filters, 5-way 1-shot miniImageNet, 50,000 iterations."""
    config = ConfigDict()
    config.seed = 0  # draws the start and the training episodes

    config.learner = learner_config("cxgrad")
    config.model = model_config("conv4")

    config.data = ConfigDict()
    config.data.name = "mini_imagenet"  # the name of a prepared data set
    config.data.image_size = 84  # pixels a side
    config.data.dir = ""  # the folder of prepared data sets; empty: $CXGRAD_DATA_DIR, else ~/.cache/cxgrad_jax
    config.data.rotated_classes = False  # whether turned classes are classes of their own in training (Omniglot)
    config.data.storage = "auto"  # training images on the "device" or the "host"; "auto": an accelerator if they fit

    config.episode = ConfigDict()
    config.episode.way = 5  # number of classes
    config.episode.shot = 1  # support images of each class
    config.episode.query = 15  # query images of each class

    config.train = ConfigDict()
    config.train.iterations = 50_000  # outer iterations
    config.train.epoch_iterations = 500  # iterations between two validations, each with a checkpoint
    config.train.meta_batch = 4  # tasks of an iteration
    config.train.learning_rate = 1e-3  # the rate of Adam
    config.train.decay_every = 0  # iterations between two cuts of the learning rate by decay_factor; 0: none
    config.train.decay_factor = 0.5  # the factor of the learning rate
    config.train.gradient_clamp = 0.0  # every entry of the outer gradient is cut to ± this; 0: no cut
    config.train.task_reduction = "mean"  # how gradients are reduced over tasks; "sum" in the paper's text
    config.train.iterations_per_dispatch = 0  # 0: 5 on a CPU, 50 on an accelerator, or the next divisor below
    config.train.keep_every = 0  # iterations between checkpoints kept for analyses over training; 0: about ten in all
    config.train.start_from = ""  # a run's folder, or weights as cx.load finds them, to take the body of; empty: none
    config.train.tensorboard = False  # whether to write TensorBoard events beside metrics.jsonl

    config.evaluation = ConfigDict()
    config.evaluation.data = ""  # the data set to test on; empty: the one trained on
    config.evaluation.seed = 0  # draws the episodes of validation and test, the same for runs of other seeds
    config.evaluation.episodes = 600  # episodes of the test
    config.evaluation.val_episodes = 600  # episodes of each validation
    config.evaluation.ensemble = 5  # number of best checkpoints whose logits are averaged

    config.parallel = ConfigDict()
    config.parallel.num_devices = 0  # 0: all; a CPU is one
    config.parallel.tasks_per_chunk = 0  # tasks of a device vectorised at once; 0: 1 on a CPU, all on an accelerator
    return config


def pretrain_config() -> ConfigDict:
    """Supervised pre-training with RFS's settings for CIFAR-FS: Conv-4, 90 passes over the training images.

    Few-shot episodes judge it as Classifier-Baseline does, by running averages. The fields of training in episodes
    (``train.meta_batch``, ``train.task_reduction``, ``train.decay_every``, ``train.gradient_clamp``) have no meaning.
    """
    config = base_config()
    config.learner = learner_config("classifier_baseline", query_statistics="running")
    config.data.name = "cifar_fs"
    config.data.image_size = 32
    config.train.iterations = 54_000
    config.train.epoch_iterations = 600
    config.train.meta_batch = 1
    config.train.learning_rate = 0.05
    config.evaluation.ensemble = 1
    config.pretrain = pretraining_stage()
    return config


def pretrain_glyphs_config() -> ConfigDict:
    """A small pre-training on the glyphs, which every machine can draw. It takes minutes on a CPU."""
    config = pretrain_config()
    config.model.features = 32
    config.data.name = "glyphs"
    config.data.image_size = 28
    config.train.iterations = 2_000
    config.train.epoch_iterations = 400
    config.evaluation.val_episodes = 100
    config.pretrain.num_classes = 182
    config.pretrain.augmentation = "none"  # a mirrored glyph is another glyph
    config.pretrain.drop_at = (1_200, 1_600)
    return config


def pretraining_stage() -> ConfigDict:
    """The fields ``pretrain.…``, which make a run a pre-training."""
    config = ConfigDict()
    config.num_classes = 64  # outputs of the classifier's head, at least as many as training classes
    config.batch_size = 64  # images of an iteration
    config.augmentation = "crop_colour"  # "none", "crop" (and mirror), or "crop_colour" (colours and contrast, too)
    config.momentum = 0.9  # the momentum of SGD
    config.weight_decay = 5e-4  # the weight decay of SGD
    config.drop_at = (27_000, 36_000, 45_000)  # iterations after which the learning rate is multiplied by drop_factor
    config.drop_factor = 0.1  # the factor of the learning rate
    return config


def analysis_config() -> ConfigDict:
    """The fields ``analysis.…`` of ``--mode=analyse``. They do not belong to a run's configuration."""
    config = ConfigDict()
    config.dir = ""  # the folder of the report; empty: "analysis" in the folder of the first run
    config.episodes = 600  # test episodes for feature similarity and conditioning
    config.landscape_episodes = 20  # episodes for the landscape, at every checkpoint
    config.landscape_split = "train"  # the split of these episodes: "train", as in the paper, "val" or "test"
    config.embedding_episode = 0  # the test episode that t-SNE shows
    config.perplexity = 30.0  # the perplexity of t-SNE
    config.cross_data = ""  # a second data set for t-SNE, such as "cub"; empty: none
    return config


def glyphs_config() -> ConfigDict:
    """The embedded default: a small CxGrad run on the glyphs, which every machine can draw, in minutes on a CPU."""
    config = base_config()
    config.model.features = 32
    config.data.name = "glyphs"
    config.data.image_size = 28
    config.train.iterations = 500
    config.train.epoch_iterations = 100
    config.evaluation.val_episodes = 100
    config.evaluation.ensemble = 2  # the earlier checkpoints of so short a run are much worse
    return config


def learner_config(name: str, **changes: Any) -> ConfigDict:
    """The hyper-parameters of a learner: the defaults of its factory, with ``changes``.

    Raises:
      UserError: there is no such learner, or its module cannot be imported.
    """
    return ConfigDict({"name": name, **factories.hyper_parameters(name), **changes})


def model_config(name: str, **changes: Any) -> ConfigDict:
    """The fields of a model: their defaults, with ``changes``. ``num_classes`` comes from the way of the episodes.

    Raises:
      UserError: there is no such model, or its module cannot be imported.
    """
    return ConfigDict({"name": name, **factories.model_fields(name), **changes})


def five_shot(config: ConfigDict) -> ConfigDict:
    """The 5-shot setting of the paper: 5 support images a class and 2 tasks an iteration."""
    config.episode.shot = 5
    config.train.meta_batch = 2
    return config


def fields(config: ConfigDict, section: str = "") -> dict[str, Any]:
    """All values by dotted path, such as ``"episode.way"``."""
    found = {}
    for name, value in config.items():
        found |= fields(value, f"{section}{name}.") if isinstance(value, ConfigDict) else {f"{section}{name}": value}
    return found


def expected_type(value: Any) -> str:
    """The type, in words, of a field whose default is ``value``."""
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "a string",
        type(None): "a string",
    }
    return kinds.get(type(value), "whole numbers with commas between")


def value_at(config: ConfigDict, path: str) -> Any:
    """The value at a dotted path, such as ``"episode.way"``."""
    for part in path.split("."):
        config = config[part]
    return config


def to_json(config: ConfigDict) -> dict[str, Any]:
    """A configuration in a form that JSON can hold, where tuples become lists."""
    return json.loads(config.to_json())
