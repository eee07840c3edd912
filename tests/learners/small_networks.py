"""Every learner on three small networks: Conv-4, ResNet-12 and one of flax's own layers."""

from typing import Any

import flax.linen as nn
from small import WAY, make_episode

import cxgrad_jax as cx

EPISODE = make_episode()
OTHERS = make_episode(1).query_images
SHORT = {
    "cxgrad": {"context_dim": 4, "num_steps": 2},
    "maml_plus_plus": {"num_steps": 2},
    "modgrad": {"context_dim": 4},
}
SHORT |= {"cavia": {"context_dim": 4}, "cxgrad_explicit": SHORT["cxgrad"], "baseline_plus_plus": {"num_epochs": 2}}
WITH_RUNNING_AVERAGES = (
    "baseline_plus_plus", "classifier_baseline", "matching_net", "meta_baseline", "metaoptnet", "proto_net", "r2d2",
    "relation_net", "rfs",
)  # fmt: skip


class Flax(nn.Module):
    """A network of flax's own layers, with what every learner asks of a backbone."""

    num_classes: int = WAY
    film_features: int = 4

    def setup(self):
        self.conv = [nn.Conv(4, (3, 3)), nn.Conv(4, (3, 3))]
        # Momentum, and running averages that nobody asked for, must not matter.
        self.norm = [nn.BatchNorm(use_running_average=False, momentum=0.5), nn.BatchNorm(False, use_scale=False)]
        self.head = nn.Dense(self.num_classes)

    def feature_maps(self, x, film=None):
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = nn.max_pool(nn.relu(norm(conv(x))), (2, 2), (2, 2))
        return x if film is None else x * film[0] + film[1]

    def embed(self, x, film=None):
        return self.feature_maps(x, film).reshape(len(x), -1)

    def __call__(self, x, film=None):
        return self.head(self.embed(x, film))


NETWORKS = {
    "conv4": cx.models.Conv4(WAY, features=4),
    "resnet12": cx.models.ResNet12(WAY, channels=(2, 2, 4, 4)),
    "flax": Flax(),
}


def build(name, network, query_statistics="support", **further: Any):
    hyper_parameters: dict[str, Any] = {**SHORT.get(name, {}), **further}
    if name == "modgrad" and network in ("flax", "resnet12"):
        hyper_parameters["param_labels"] = lambda path, leaf: "adapted" if leaf.ndim == 4 else "meta"
    return getattr(cx.learners, name)(NETWORKS[network], query_statistics=query_statistics, **hyper_parameters)
