"""ANIL, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/anil.py --workdir=runs/anil

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, second order, five best checkpoints.

The method's authors have published no code. The preset :authors is that of the BOIL repository: 64 filters with bias,
ReLU, one step of 0.5, 30,000 iterations, the best checkpoint alone.
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("anil")
    if is_authors(preset):
        config.model.features = 64
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.learner.inner_lr = 0.5
        config.learner.num_steps = 1
        config.train.iterations = 30_000
        config.evaluation.ensemble = 1
    return config
