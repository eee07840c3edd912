"""MAML, ResNet-12, 5-way 5-shot tieredImageNet: a cell of Table 7.

    python -m cxgrad_jax.main --config=configs/maml_tiered_5shot_resnet12.py --workdir=runs/maml_tiered_5shot_resnet12

125,000 iterations of 2 tasks. Published test accuracy: 71.24 ± 0.43 %, quoted by the paper from another work.
"""

from cxgrad_jax.training.config import base_config, five_shot, learner_config, model_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    config.model = model_config("resnet12")
    config.data.name = "tiered_imagenet"
    config.train.iterations = 125_000
    five_shot(config)
    return apply_preset(config, preset)
