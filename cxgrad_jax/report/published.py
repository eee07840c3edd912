"""The numbers that the CxGrad paper prints, to be shown beside your own.

The rows of other methods come from their own papers, with other normalisations and test protocols.
"""

from collections.abc import Mapping
from typing import Any

from cxgrad_jax.training.config import ConfigDict, learner_config, model_config

MINI, TIERED, CUB, CIFAR = "mini_imagenet", "tiered_imagenet", "cub", "cifar_fs"

# Training data, test data and shot of the columns. A cell is the 5-way test accuracy in %, and what the paper prints
# after ±.
TABLE_1 = ((MINI, MINI, 1), (MINI, MINI, 5), (TIERED, TIERED, 1), (TIERED, TIERED, 5))  # Conv-4
TABLE_2 = ((MINI, CUB, 5), (MINI, CIFAR, 5))  # Conv-4, across domains
TABLES_6_7 = TABLE_1  # ResNet-12

CONV4 = {
    "matching_net": ((43.44, 0.77), (55.31, 0.73)),
    "relation_net": ((50.44, 0.82), (65.32, 0.70)),
    "proto_net": ((49.42, 0.78), (68.20, 0.66)),
    "maml": ((48.70, 1.84), (63.11, 0.92), (49.06, 0.50), (67.48, 0.47)),
    "cavia": ((51.82, 0.65), (65.85, 0.55)),  # with 512 filters
    "boil": ((49.61, 0.16), (66.45, 0.37), (48.58, 0.27), (69.37, 0.12)),
    "maml_plus_plus": ((52.15, 0.26), (68.32, 0.44)),
    "alfa": ((50.58, 0.51), (69.12, 0.47), (53.16, 0.49), (70.54, 0.46)),
    "modgrad": ((53.20, 0.86), (69.17, 0.69)),
    "l2f": ((52.10, 0.50), (69.38, 0.46), (54.40, 0.50), (73.34, 0.44)),
    "cxgrad": ((51.80, 0.46), (69.82, 0.42), (55.55, 0.46), (73.55, 0.41)),
}
CONV4_ACROSS = {
    "maml": ((52.70, 0.32), (55.82, 0.50)),
    "alfa": ((58.35, 0.25), (59.76, 0.49)),
    "boil": ((60.84, 0.45), (63.28, 0.45)),  # reproduced by the paper's authors
    "l2f": ((60.89, 0.22), (63.73, 0.48)),
    "cxgrad": ((63.92, 0.44), (64.85, 0.44)),
}
RESNET12 = {
    "maml": ((58.37, 0.49), (69.76, 0.46), (58.58, 0.49), (71.24, 0.43)),
    "boil": (None, (71.30, 0.28)),
    "l2f": ((59.71, 0.49), (77.04, 0.42), (64.04, 0.48), (81.13, 0.39)),
    "alfa": ((59.74, 0.49), (77.96, 0.41), (64.62, 0.49), (82.48, 0.38)),
    "cxgrad": ((60.19, 0.45), (75.17, 0.40), (65.47, 0.44), (82.52, 0.35)),
}


# Tables 3 to 5: CxGrad's ablations on miniImageNet by the hyper-parameters that differ from its defaults, 1-shot and
# 5-shot. None means that the paper prints no number. Those of Table 4 have no interval.
ABLATIONS = {
    (("context_update", "step"),): (None, (68.83, 0.43)),
    (("num_steps", 1),): (None, (69.12, None)),
    (("num_steps", 2),): (None, (69.33, None)),
    (("num_steps", 3),): (None, (69.16, None)),
    (("num_steps", 4),): (None, (69.53, None)),
    (("context_lr", 0.01),): ((51.56, None), (69.28, None)),
    (("context_lr", 0.1),): ((51.29, None), (69.34, None)),
}


# The names of the methods in the paper.
METHODS: dict[str, str] = {
    "matching_net": "MatchingNet", "relation_net": "RelationNet", "proto_net": "ProtoNet", "maml": "MAML",
    "cavia": "CAVIA", "boil": "BOIL", "maml_plus_plus": "MAML++", "alfa": "ALFA", "modgrad": "ModGrad", "l2f": "L2F",
    "cxgrad": "CxGrad",
}  # fmt: skip

# The methods whose public codes test by running averages. The codes of all others normalise by the query images.
INDUCTIVE_NUMBERS = ("proto_net", "matching_net")
WHAT_THEY_SEE = (
    "By public codes of these methods the published numbers of "
    f"{' and '.join(METHODS[name] for name in INDUCTIVE_NUMBERS)} are inductive, and all others transductive."
)

# The filters of Conv-4 and the iterations of runs that a number may be shown beside: those of the setting that all
# learners share and, if they differ, those of the method's own published setting (the preset "authors").
SHARED_FILTERS = 48
SHARED_ITERATIONS = {MINI: 50_000, TIERED: 125_000}
AUTHORS = {
    "boil": (64, 30_000), "cavia": (512, 60_000), "l2f": (48, 30_000), "matching_net": (64, 60_000),
    "modgrad": (64, 16_500), "proto_net": (64, 50_000), "relation_net": (64, 500_000),
}  # fmt: skip
OWN_FILTERS_ONLY = ("cavia",)  # the paper names the width in this row: "CAVIA (512)"


def cell_of_paper(config: ConfigDict) -> tuple[float, float | None] | None:
    """The accuracy and ± in per cent that the paper prints for a learner, backbone, data and shot, or None.

    CxGrad's hyper-parameters and the normalisation matter too: if they are not the paper's, there is no number.
    """
    if config.episode.way != 5 or config.model.get("norm", "batch") != "batch":
        return None
    column = (config.data.name, config.evaluation.data or config.data.name, config.episode.shot)
    rows: list[tuple[Mapping[Any, tuple[Any, ...]], tuple[Any, ...]]] = [(CONV4, TABLE_1), (CONV4_ACROSS, TABLE_2)]
    key: Any = config.learner.name
    if changes := _changes(config.learner):
        rows, key = [(ABLATIONS, TABLE_1)] if config.model.name == "conv4" else [], changes
    elif config.model.name == "resnet12":
        rows = [(RESNET12, TABLES_6_7)]
    for table, columns in rows:
        cells = dict(zip(columns, table.get(key, ()), strict=False))
        if column in cells:
            return cells[column]
    return None


def comparable_number(config: ConfigDict) -> tuple[float, float | None] | None:
    """The result of ``cell_of_paper`` for a run with the paper's model, data and iterations; None for any other run."""
    return cell_of_paper(config) if _is_of_the_paper(config) else None


def as_printed(number: tuple[float, float | None]) -> str:
    """The number in a form such as ``"51.80 ± 0.46"``, without ± if it has no interval."""
    value, interval = number
    return f"{value:.2f}" if interval is None else f"{value:.2f} ± {interval:.2f}"


def has_published_width(config: ConfigDict) -> bool:
    """Whether the backbone is as wide as the backbone of the published number."""
    model = config.model
    if model.name == "resnet12":
        return model.channels == model_config("resnet12").channels
    shared = () if config.learner.name in OWN_FILTERS_ONLY else (SHARED_FILTERS,)
    return model.get("features") in (*shared, AUTHORS.get(config.learner.name, (SHARED_FILTERS,))[0])


def _is_of_the_paper(config: ConfigDict) -> bool:
    """Whether backbone, its width and normalisation, and iterations are those of a published number."""
    if config.model.name not in ("conv4", "relation_conv4", "resnet12") or config.model.norm != "batch":
        return False
    iterations = (SHARED_ITERATIONS.get(config.data.name), AUTHORS.get(config.learner.name, (0, None))[1])
    return has_published_width(config) and config.train.iterations in iterations


def _changes(learner: ConfigDict) -> tuple[tuple[str, Any], ...]:
    """CxGrad's hyper-parameters that are not the paper's. Other learners have none."""
    if learner.name != "cxgrad":
        return ()
    defaults = learner_config("cxgrad", remat=learner.remat)
    defaults.differentiate_first_context = learner.differentiate_first_context  # text and code differ in it
    return tuple((field, value) for field, value in learner.items() if value != defaults[field])
