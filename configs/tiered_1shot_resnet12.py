"""CxGrad, ResNet-12, 5-way 1-shot tieredImageNet: a cell of Table 7.

    python -m cxgrad_jax.main --config=configs/tiered_1shot_resnet12.py --workdir=runs/tiered_1shot_resnet12

125,000 iterations of 4 tasks. Published test accuracy: 65.47 ± 0.44 % (by the paper's binomial interval).
"""

from cxgrad_jax.training.config import base_config, model_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.model = model_config("resnet12")
    config.data.name = "tiered_imagenet"
    config.train.iterations = 125_000
    return apply_preset(config, preset)
