"""MAML, Conv-4, 5-way 5-shot CIFAR-FS at its own 32x32.

    python -m cxgrad_jax.main --config=configs/maml_cifar_fs_5shot.py --workdir=runs/maml_cifar_fs_5shot

50,000 iterations of 2 tasks. Not in the paper. For comparison, Bertinetto et al. (2019) print 71.5 ± 1.0 % for
MAML, with another width and protocol.
"""

from cxgrad_jax.training.config import base_config, five_shot, learner_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    config.data.name = "cifar_fs"
    config.data.image_size = 32
    five_shot(config)
    return apply_preset(config, preset)
