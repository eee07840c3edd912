"""CxGrad, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/cxgrad.py --workdir=runs/cxgrad

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors, the method's own setting, equals the shared one.

Published test accuracy: 51.80 ± 0.46 % (5-shot 69.82 ± 0.42 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("cxgrad")
    is_authors(preset)  # both presets are one
    return config
