"""CxGrad, Conv-4, 5-way 5-shot tieredImageNet: a cell of Table 1.

    python -m cxgrad_jax.main --config=configs/tiered_5shot.py --workdir=runs/tiered_5shot

125,000 iterations of 2 tasks. Published test accuracy: 73.55 ± 0.41 % (by the paper's binomial interval).
"""

from cxgrad_jax.training.config import base_config, five_shot
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.data.name = "tiered_imagenet"
    config.train.iterations = 125_000
    five_shot(config)
    return apply_preset(config, preset)
