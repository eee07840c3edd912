"""CxGrad, Conv-4, 20-way 1-shot Omniglot at 28x28, Vinyals' split, turned characters as training classes of their own.

    python -m cxgrad_jax.main --config=configs/omniglot_20way_1shot.py --workdir=runs/omniglot_20way_1shot

50,000 iterations of 4 tasks. Not in the paper.
"""

from cxgrad_jax.training.config import base_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.data.name = "omniglot"
    config.data.image_size = 28
    config.data.rotated_classes = True
    config.episode.way = 20
    return apply_preset(config, preset)
