"""MAML, ResNet-12, 5-way 5-shot miniImageNet: a cell of Table 6.

    python -m cxgrad_jax.main --config=configs/maml_mini_5shot_resnet12.py --workdir=runs/maml_mini_5shot_resnet12

50,000 iterations of 2 tasks. Published test accuracy: 69.76 ± 0.46 %, quoted by the paper from another work.
"""

from cxgrad_jax.training.config import base_config, five_shot, learner_config, model_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    config.model = model_config("resnet12")
    five_shot(config)
    return apply_preset(config, preset)
