"""ModGrad, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/modgrad.py --workdir=runs/modgrad

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors is the method's own: 64 filters with bias, ReLU, ImageNet's mean and deviation, the sum over 3
tasks, 16,500 iterations, the rate halved every 6,600 (there the modulator's every 2,640), the best checkpoint alone,
1,000 test episodes.

Published test accuracy: 53.20 ± 0.86 % (5-shot 69.17 ± 0.69 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("modgrad")
    if is_authors(preset):
        config.model.features = 64
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.model.image_statistics = "imagenet"
        config.train.task_reduction = "sum"
        config.train.meta_batch = 3
        config.train.iterations = 16_500
        config.train.decay_every = 6_600
        config.evaluation.ensemble = 1
        config.evaluation.episodes = 1000
    return config
