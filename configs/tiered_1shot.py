"""CxGrad, Conv-4, 5-way 1-shot tieredImageNet: a cell of Table 1.

    python -m cxgrad_jax.main --config=configs/tiered_1shot.py --workdir=runs/tiered_1shot

125,000 iterations of 4 tasks. Published test accuracy: 55.55 ± 0.46 % (by the paper's binomial interval).
"""

from cxgrad_jax.training.config import base_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.data.name = "tiered_imagenet"
    config.train.iterations = 125_000
    return apply_preset(config, preset)
