"""Classifier-Baseline, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/classifier_baseline.py --workdir=runs/classifier_baseline

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints. It trains the encoder in
episodes, which is not the method's own training.

The preset :authors is the method's own network: ResNet-12 of 64, 128, 256 and 512 filters that pools in every block,
leaky ReLU 0.1, images of 80 pixels, ImageNet's mean and deviation, running averages at evaluation, one checkpoint. The
method has no training in episodes: its published numbers are those of a pre-trained encoder. This preset, too, trains
the encoder in episodes, unless it begins at a pre-trained one (train.start_from) with --config.train.iterations=0.

Published test accuracy: 58.91 % (5-shot 77.76 %), tieredImageNet 68.07 % (83.74 %).
"""

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("classifier_baseline")
    if is_authors(preset):
        config.learner.query_statistics = "running"
        config.model = model_config("resnet12", channels=(64, 128, 256, 512), pooling="every_block")
        config.model.negative_slope = 0.1
        config.model.image_statistics = "imagenet"
        config.data.image_size = 80
        config.evaluation.ensemble = 1
    return config
