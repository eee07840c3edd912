"""CxGrad, Conv-4, 5-way 1-shot miniImageNet: a cell of Table 1.

    python -m cxgrad_jax.main --config=configs/mini_1shot.py --workdir=runs/mini_1shot

50,000 iterations of 4 tasks. Published test accuracy: 51.80 ± 0.46 % (by the paper's binomial interval).
"""

from cxgrad_jax.training.config import base_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    return apply_preset(config, preset)
