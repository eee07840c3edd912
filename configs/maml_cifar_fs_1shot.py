"""MAML, Conv-4, 5-way 1-shot CIFAR-FS at its own 32x32.

    python -m cxgrad_jax.main --config=configs/maml_cifar_fs_1shot.py --workdir=runs/maml_cifar_fs_1shot

50,000 iterations of 4 tasks. Not in the paper. For comparison, Bertinetto et al. (2019) print 58.9 ± 1.9 % for
MAML, with another width and protocol.
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    config.data.name = "cifar_fs"
    config.data.image_size = 32
    return apply_preset(config, preset)
