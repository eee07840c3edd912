"""R2-D2, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/r2d2.py --workdir=runs/r2d2

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints.

The preset :authors is the method's own: its own network of 96, 192, 384 and 512 filters, support and query normalised
together, running averages at evaluation, a scale that starts at 1e-4 (10 on CIFAR-FS), one episode an iteration,
120,000 of them, Adam 5e-3, halved every 2,000, the best checkpoint alone. Its dropout, and its training episodes of 16
ways and 1 to 9 shots, are not offered.

Published test accuracy, not verified: 51.8 ± 0.2 % (5-shot 68.4 ± 0.2 %); CIFAR-FS 65.4 ± 0.2 % (79.4 ± 0.2 %), with 64
filters 62.3 ± 0.2 % (77.4 ± 0.2 %).
"""

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("r2d2")
    if is_authors(preset):
        config.learner.query_statistics = "running"
        config.model = model_config("r2d2_conv4")
        config.learner.joint_normalisation = True
        config.learner.initial_scale = 1e-4
        config.train.meta_batch = 1
        config.train.iterations = 120_000
        config.train.learning_rate = 5e-3
        config.train.decay_every = 2_000
        config.evaluation.ensemble = 1
    return config
