"""MAML, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/maml.py --workdir=runs/maml

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors is that of the MAML baseline in CxGrad's official code, which equals the shared one.

Published test accuracy, with other widths and an inner loss five times larger: 48.70 ± 1.84 % (5-shot 63.11 ± 0.92 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    is_authors(preset)  # both presets are one
    return config
