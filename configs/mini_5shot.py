"""CxGrad, Conv-4, 5-way 5-shot miniImageNet: a cell of Table 1.

    python -m cxgrad_jax.main --config=configs/mini_5shot.py --workdir=runs/mini_5shot

50,000 iterations of 2 tasks. Published test accuracy: 69.82 ± 0.42 % (by the paper's binomial interval).
"""

from cxgrad_jax.training.config import base_config, five_shot
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    five_shot(config)
    return apply_preset(config, preset)
