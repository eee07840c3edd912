"""Baseline++, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/baseline_plus_plus.py --workdir=runs/baseline_plus_plus

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints. It trains the encoder in episodes,
which is not the method's own training.

The preset :authors is the method's own network: Conv-4 of 64 filters with bias, ReLU, ImageNet's mean and deviation,
running averages at evaluation, one checkpoint. The method has no training in episodes: its published numbers are those
of a pre-trained encoder. This preset, too, trains the encoder in episodes, unless it begins at a pre-trained one
(train.start_from) with --config.train.iterations=0. Baseline is --config.learner.classifier=linear.

Published test accuracy: 48.24 ± 0.75 % (5-shot 66.43 ± 0.63 %). Baseline, not verified: 42.11 ± 0.71 % (62.53 ±
0.69 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("baseline_plus_plus")
    if is_authors(preset):
        config.learner.query_statistics = "running"
        config.model.features = 64
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.model.image_statistics = "imagenet"
        config.evaluation.ensemble = 1
    return config
