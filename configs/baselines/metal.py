"""MeTAL, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/metal.py --workdir=runs/metal

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The preset :authors is the method's own: convolution bias, ImageNet's mean and deviation. ALFA with MeTAL is
--config.learner.alfa=true. Both see the query images in the inner loop.

Published test accuracy: 52.63 ± 0.37 % (5-shot 70.52 ± 0.29 %), with ALFA 57.75 ± 0.38 % (74.10 ± 0.43 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("metal")
    if is_authors(preset):
        config.model.use_bias = True
        config.model.image_statistics = "imagenet"
    return config
