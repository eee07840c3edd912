"""MetaOptNet, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/metaoptnet.py --workdir=runs/metaoptnet

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints.

The preset :authors is the method's own: ResNet-12 of 64, 160, 320 and 640 filters that pools in every block, leaky ReLU
0.1, ImageNet's mean and deviation, smoothed labels, running averages at evaluation, 60,000 iterations of 8 tasks, the
best checkpoint alone. Adam takes the place of SGD with momentum and weight decay. Its features without average pooling,
training at 15 shots, dropout, DropBlock and augmentation are not offered.

Published test accuracy, not verified: ridge 61.41 % (5-shot 77.88 %), CIFAR-FS 72.6 % (84.3 %); SVM 62.64 ± 0.61 %
(78.63 ± 0.46 %), CIFAR-FS 72.0 ± 0.7 % (84.2 ± 0.5 %).
"""

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("metaoptnet")
    if is_authors(preset):
        config.learner.query_statistics = "running"
        config.model = model_config("resnet12", channels=(64, 160, 320, 640), pooling="every_block")
        config.model.negative_slope = 0.1
        config.model.image_statistics = "imagenet"
        config.learner.label_smoothing = 0.1
        config.train.meta_batch = 8
        config.train.iterations = 60_000
        config.evaluation.ensemble = 1
    return config
