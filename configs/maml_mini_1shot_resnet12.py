"""MAML, ResNet-12, 5-way 1-shot miniImageNet: a cell of Table 6.

    python -m cxgrad_jax.main --config=configs/maml_mini_1shot_resnet12.py --workdir=runs/maml_mini_1shot_resnet12

50,000 iterations of 4 tasks. Published test accuracy: 58.37 ± 0.49 %, quoted by the paper from another work.
"""

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    config.model = model_config("resnet12")
    return apply_preset(config, preset)
