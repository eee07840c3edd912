"""CAVIA, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/cavia.py --workdir=runs/cavia

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors is the method's own: 512 filters (the published row's; the code's own default is 32) with bias,
ReLU, ImageNet's mean and deviation, gradients cut to ±10, the rate times 0.9 every 5,000 of 60,000 iterations, the
best checkpoint alone, 500 test episodes.

Published test accuracy: 51.82 ± 0.65 % (5-shot 65.85 ± 0.55 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("cavia")
    if is_authors(preset):
        config.model.features = 512
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.model.image_statistics = "imagenet"
        config.train.gradient_clamp = 10.0
        config.train.iterations = 60_000
        config.train.decay_every = 5_000
        config.train.decay_factor = 0.9
        config.evaluation.ensemble = 1
        config.evaluation.episodes = 500
    return config
