"""What a prediction sees, in words and as yes or no, and that both agree."""

from pathlib import Path

import flax.linen as nn
import pytest

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.transductive import batch_norm, is_transductive


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
@pytest.mark.parametrize("statistics", ["query", "support"])
@pytest.mark.parametrize("name", ["maml", "metal"])
def test_words_and_verdict_agree(name, statistics, norm):
    config = base_config()
    config.learner = learner_config(name, query_statistics=statistics)
    config.model.norm = norm
    sees_all = statistics == "query" and (norm == "batch" or name == "metal")
    assert is_transductive(config) == sees_all == ("transductive" in batch_norm(config))


class Plain(nn.Module):
    """A user's model, which has no field ``norm``."""

    num_classes: int
    normalised: bool = False

    @nn.compact
    def __call__(self, images):
        maps = nn.Conv(4, (3, 3))(images)
        if self.normalised:
            maps = nn.BatchNorm(use_running_average=False)(maps)
        return nn.Dense(self.num_classes)(nn.relu(maps).mean((1, 2)))


@pytest.mark.parametrize("normalised", [False, True])
def test_a_model_of_ones_own_is_asked(normalised, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    config = base_config()
    config.learner = learner_config("maml")
    config.model = model_config("test_transductive.Plain", normalised=normalised)
    assert is_transductive(config) == normalised == ("transductive" in batch_norm(config))
    assert (batch_norm(config) == "none (no batch normalisation)") != normalised
