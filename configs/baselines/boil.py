"""BOIL, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/boil.py --workdir=runs/boil

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors is the method's own: 64 filters with bias, ReLU, 30,000 iterations of 4 tasks (5-shot too), the
best checkpoint alone. ResNet-12 takes --config.learner.inner_lr=0.3.

Published test accuracy: 49.61 ± 0.16 % (5-shot 66.45 ± 0.37 %), ± a standard deviation of repeats.
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("boil")
    if is_authors(preset):
        config.model.features = 64
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.train.iterations = 30_000
        config.evaluation.ensemble = 1
    return config
