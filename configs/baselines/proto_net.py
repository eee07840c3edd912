"""ProtoNet, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/proto_net.py --workdir=runs/proto_net

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints.

The preset :authors is the method's own: 64 filters with bias, ReLU, one episode an iteration, support and query
normalised together, running averages at evaluation, the rate halved every 2,000 iterations, the best checkpoint alone.
The 30 or 20 ways of the published training are not offered.

Published test accuracy: 49.42 ± 0.78 % (5-shot 68.20 ± 0.66 %).
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("proto_net")
    if is_authors(preset):
        config.learner.query_statistics = "running"
        config.model.features = 64
        config.model.use_bias = True
        config.model.negative_slope = 0.0
        config.learner.joint_normalisation = True
        config.train.meta_batch = 1
        config.train.decay_every = 2_000
        config.evaluation.ensemble = 1
    return config
