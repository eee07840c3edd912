"""CxGrad, ResNet-12, 5-way 5-shot miniImageNet: a cell of Table 6.

    python -m cxgrad_jax.main --config=configs/mini_5shot_resnet12.py --workdir=runs/mini_5shot_resnet12

50,000 iterations of 2 tasks. Published test accuracy: 75.17 ± 0.40 % (by the paper's binomial interval).
"""

from cxgrad_jax.training.config import base_config, five_shot, model_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.model = model_config("resnet12")
    five_shot(config)
    return apply_preset(config, preset)
