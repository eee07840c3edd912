"""CxGrad, ResNet-12, 5-way 1-shot miniImageNet: a cell of Table 6.

    python -m cxgrad_jax.main --config=configs/mini_1shot_resnet12.py --workdir=runs/mini_1shot_resnet12

50,000 iterations of 4 tasks. Published test accuracy: 60.19 ± 0.45 % (by the paper's binomial interval).
"""

from cxgrad_jax.training.config import base_config, model_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.model = model_config("resnet12")
    return apply_preset(config, preset)
