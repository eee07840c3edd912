"""Meta-SGD, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/meta_sgd.py --workdir=runs/meta_sgd

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The method's authors have published no code. The preset :authors is that of an unofficial code: 64 filters with bias,
ReLU, rates from 1e-3, 60,000 iterations, the best checkpoint alone. The shared setting starts the rates at 0.1.
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("meta_sgd")
    if is_authors(preset):
        config.model.features = 64
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.learner.initial_lr = 1e-3
        config.train.iterations = 60_000
        config.evaluation.ensemble = 1
    return config
