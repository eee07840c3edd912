"""Trajectories of MeTAL's official code, without and with ALFA, in ``tests/golden`` (float64 figures, no code)."""

import re
from typing import Any

import numpy as np
import optax
import pytest
from golden_files import Comparison, episodes_of, first_tasks, load, outer_optimiser, outer_step

import cxgrad_jax as cx
from cxgrad_jax.learners._labels import by_path, merge

pytestmark = pytest.mark.usefixtures("double_precision")

METAL = 1e-8  # of each tensor's maximum

# The loss networks, one for each step.
NAMES = [
    (r"^meta_loss\.layer_dict\.step(\d+)\.", r"losses/support/@\1/"),
    (r"^meta_query_loss\.layer_dict\.step(\d+)\.", r"losses/query/@\1/"),
    (r"^meta_loss_adapter\.loss_adapter\.(\d+)\.", r"adapters/support/@\1/"),
    (r"^meta_query_loss_adapter\.loss_adapter\.(\d+)\.", r"adapters/query/@\1/"),
    (r"(adapters.*)linear", r"\1network/linear"),
    (r"linear1\.", "hidden/"),
    (r"linear2\.", "output/"),
    (r"weights?$", "kernel"),
    (r"(multiplier|offset)_bias$", r"\1"),
]


def tensors(golden, prefix: str, kind: str) -> dict[str, Any]:
    """The arrays under ``prefix/`` in this package's layout, by path."""
    family, per_step = {}, {}
    for name, array in golden.items():
        if not name.startswith(f"{prefix}/"):
            continue
        name = name.removeprefix(f"{prefix}/")
        if not name.startswith("meta_"):
            family[name.replace("update_rule_learner", "regularizer")] = array  # as ALFA's own code calls it
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        before, step, after = re.split(r"@(\d+)/", name)
        per_step.setdefault(before + after, {})[int(step)] = array.T
    found = by_path(cx.interop.from_official(family, kind))
    return found | {path: np.stack([of[k] for k in sorted(of)]) for path, of in per_step.items()}


@pytest.mark.parametrize("name", ["metal", "metal_alfa"])
def test_metal_agrees_with_the_official_code_in_float64(name):
    golden, settings = load(name)
    kind, comparison = "alfa" if name == "metal_alfa" else "maml", Comparison()
    model = cx.models.Conv4(settings["way"], settings["filters"], use_bias=settings["conv_bias"])
    rates: dict[str, Any] = {"alfa": True} if kind == "alfa" else {"inner_lr": settings["inner_lr"]}
    first_order = not settings["second_order"]
    learner = cx.learners.metal(model, num_steps=settings["inner_steps"], first_order=first_order, **rates)
    params, optimiser = merge(tensors(golden, "param", kind)), outer_optimiser(settings)
    opt_state = optimiser.init(params)

    step = outer_step(learner)
    for prefix in (*(f"iter{i}" for i in range(settings["iterations"])), "eval"):
        outcome, gradient = step(params, episodes_of(golden, prefix, np.float64, "iter0"))
        losses, _, logits = first_tasks(outcome, golden, prefix)
        comparison.record("loss", losses.mean(), golden[f"{prefix}/loss"])
        comparison.record("losses", losses[:, None], golden[f"{prefix}/outer_losses"])
        comparison.record("logits", logits, golden[f"{prefix}/query_logits"])
        if prefix == "eval":
            break
        stored = tensors(golden, f"{prefix}/grad", kind)
        comparison.gradients(by_path(gradient), stored)
        # Some gradients are 1e-8 of the largest, and Adam makes as much of their rounding as of large ones: it is given
        # those of the file.
        updates, opt_state = optimiser.update(merge(stored), opt_state, params)
        params = optax.apply_updates(params, updates)
        expected = tensors(golden, f"{prefix}/param_after", kind)
        params = comparison.parameters(by_path(params), expected, settings["outer"]["lr"])
    comparison.verdict(name, METAL)
