"""CxGrad, Conv-4, 5-way 5-shot, trained on miniImageNet and tested on CIFAR-FS at 84x84: a cell of Table 2.

    python -m cxgrad_jax.main --config=configs/mini_to_cifar_fs_5shot.py --workdir=runs/mini_to_cifar_fs_5shot

Or test a finished run of mini_5shot.py, without training again:

    python -m cxgrad_jax.main --mode=evaluate --config.evaluation.data=cifar_fs --workdir=runs/mini_5shot

50,000 iterations of 2 tasks. Published test accuracy: 64.85 ± 0.44 %.
The official code normalises CIFAR-FS (and nothing else) by its mean and standard deviation; here images stay in [0, 1].
"""

from cxgrad_jax.training.config import base_config, five_shot
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    five_shot(config)
    config.evaluation.data = "cifar_fs"
    return apply_preset(config, preset)
