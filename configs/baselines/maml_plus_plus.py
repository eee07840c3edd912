"""MAML++, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/maml_plus_plus.py --workdir=runs/maml_plus_plus

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

A run much shorter than 50,000 iterations should shorten the epochs of the multi-step loss in proportion: 2,000
iterations with --config.learner.epoch_iterations=20.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors is the method's own: convolution bias, ImageNet's mean and deviation, first order in the first 11
epochs, the sum over tasks, gradients cut to ±10 (there the learned rates' are not). They are the settings of the
repository before May 2019, which are nearest to the published numbers.

Published test accuracy: 52.15 ± 0.26 % (5-shot 68.32 ± 0.44 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml_plus_plus")
    if is_authors(preset):
        config.model.use_bias = True
        config.model.image_statistics = "imagenet"
        config.learner.first_order_epochs = 11
        config.train.task_reduction = "sum"
        config.train.gradient_clamp = 10.0
    return config
