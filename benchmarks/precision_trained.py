"""What the precision of an accelerator's products does to the accuracy after training, imitated on a CPU.

    python -m benchmarks.precision_trained --config cifar_fs_1shot --seeds 3 --workdir runs/precision --out FILE.json \
        --config.train.iterations=2000

The configuration is trained and tested with products in float32 and with each of ``--products``, which
``benchmarks.precision`` imitates in all derivatives, in validation and in the test. Each run lies in
``WORKDIR/PRODUCTS/seed_N``; one that is finished is read. Prints the accuracy of every kind of product, and its
difference from float32 with the same seeds on the same test episodes.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.precision import IMITATED, imitated
from cxgrad_jax import runtime
from cxgrad_jax.command_line import at_least_one, exit_status, overrides
from cxgrad_jax.report.results import planned, results_of
from cxgrad_jax.report.seeds import paired_over_seeds, summary
from cxgrad_jax.report.tables import percent_with
from cxgrad_jax.training.config_files import load_config

KINDS = {
    "float32": "float32 (H100, highest)",
    "tf32": "TF32 (H100, default and high)",
    "bfloat16_6": "six passes of bfloat16 (TPU, highest)",
    "bfloat16_3": "three passes of bfloat16 (TPU, high)",
    "bfloat16_1": "one pass of bfloat16 (TPU, default)",
}


def main(flags: list[str]) -> None:
    """Trains or reads the runs, compares and prints."""
    parser = argparse.ArgumentParser(prog="precision_trained", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", default="cifar_fs_1shot", help="a file or the name of a configuration")
    parser.add_argument("--products", nargs="+", choices=list(KINDS), default=["tf32", "bfloat16_1"])
    parser.add_argument("--seeds", type=at_least_one, default=3, help="runs of each kind (default 3)")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="JSON file")
    given, others = parser.parse_known_args(flags)
    config = load_config(given.config)
    overrides(others, [config], "--config, --products, --seeds, --workdir, --out")(config)
    config.model.precision = "default"  # "highest" would exempt the head; a CPU knows no difference
    runtime.let_devices_be_late()
    found = {}
    for kind in dict.fromkeys(("float32", *given.products)):
        with imitated(IMITATED[KINDS[kind]]):
            found[kind] = [results_of(run) for run in planned(kind, config, given.workdir / kind, given.seeds)]
        over_seeds = summary(found[kind])
        by_seed = ", ".join(f"{100 * each['test_accuracy']:.2f}" for each in found[kind])
        print(f"{KINDS[kind]}: {percent_with(over_seeds.accuracy, over_seeds.interval)} % (seeds: {by_seed})")
    accuracies = {kind: np.array([each["episode_accuracies"] for each in runs]) for kind, runs in found.items()}
    result = {
        kind: {
            "test_accuracy": [each["test_accuracy"] for each in runs],
            **paired_over_seeds(accuracies[kind], accuracies["float32"]),
        }
        for kind, runs in found.items()
    }
    for kind, told in result.items():
        if kind != "float32":
            change = f"{100 * told['difference']:+.2f} ± {100 * told['difference_ci95']:.2f} points"
            print(f"{kind} against float32: {change}, p = {told['p_value']:.4f}")
    if given.out:
        command = "python -m benchmarks.precision_trained " + " ".join(flags)
        given.out.write_text(json.dumps({"command": command, "results": result}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
