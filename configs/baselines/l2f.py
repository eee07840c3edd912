"""L2F, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/l2f.py --workdir=runs/l2f

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors is the method's own: ImageNet's mean and deviation, first order in the first 11 epochs, the sum
over tasks, gradients cut to ±10 (there the attenuator's are not), 30,000 iterations, three best checkpoints.

Published test accuracy: 52.10 ± 0.50 % (5-shot 69.38 ± 0.46 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("l2f")
    if is_authors(preset):
        config.model.image_statistics = "imagenet"
        config.learner.first_order_epochs = 11
        config.train.task_reduction = "sum"
        config.train.gradient_clamp = 10.0
        config.train.iterations = 30_000
        config.evaluation.ensemble = 3
    return config
