"""MatchingNet, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/matching_net.py --workdir=runs/matching_net

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints.

The method's authors have published no code. The preset :authors is that of CloserLookFewShot: 64 filters with bias,
ReLU, ImageNet's mean and deviation, full-context embeddings, support and query normalised together, running averages at
evaluation, 16 queries, one episode an iteration, 60,000 of them (5-shot 40,000), the best checkpoint alone.

Published test accuracy: 43.44 ± 0.77 % (5-shot 55.31 ± 0.73 %). The first number is probably that of another method.
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("matching_net")
    if is_authors(preset):
        config.learner.query_statistics = "running"
        config.model.features = 64
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.model.image_statistics = "imagenet"
        config.learner.full_context = True
        config.learner.joint_normalisation = True
        config.episode.query = 16
        config.train.meta_batch = 1
        config.train.iterations = 60_000
        config.evaluation.ensemble = 1
    return config
