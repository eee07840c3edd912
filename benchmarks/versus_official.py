"""The project against the official PyTorch code (a clone of shlee625/CxGrad), on this machine, interleaved.

    python -m benchmarks.versus_official --official PATH --setting mini_1shot --rounds 5 --out FILE.json

A round is one training iteration: ours is the compiled program that ``cxgrad_jax.main`` runs (episodes drawn and
gathered inside), theirs ``run_train_iter`` on ready arrays (their data loading is left out). With ``--what adaptation``
it is the adaptation to ``--episodes`` test episodes and the prediction of their queries.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks import interleaved, official, ours

TEST_EPISODES = 600


def our_side(arguments: argparse.Namespace):
    """This project's iteration or evaluation."""
    import jax

    config = ours.prepare(arguments.setting, data__image_size=arguments.image_size)
    one_round = ours.training(config) if arguments.what == "training" else ours.adaptation(config, arguments.episodes)
    return one_round, {"jax": jax.__version__}


def official_side(arguments: argparse.Namespace):
    """The official code's iteration or evaluation, with the configuration that it ships."""
    import torch  # pyright: ignore[reportMissingImports]

    training, evaluation, tasks = official.rounds(arguments.official, arguments.setting, "cpu", arguments.image_size)
    versions = {"torch": torch.__version__}
    if arguments.what == "training":
        return training, versions
    return lambda: [evaluation() for _ in range(arguments.episodes // tasks)], versions


def main(flags: list[str]) -> None:
    """Compares and reports; exits with status 2 where the official code or torch is missing."""
    parser = argparse.ArgumentParser(prog="versus_official", description="Ours against the official PyTorch code.")
    parser.add_argument("--official", required=True, type=Path, help="a clone of github.com/shlee625/CxGrad")
    parser.add_argument("--setting", choices=list(official.CONFIGS), default="mini_1shot")
    parser.add_argument("--what", choices=["training", "adaptation"], default="training")
    parser.add_argument("--episodes", type=int, default=60, help="test episodes a round, a multiple of 20")
    parser.add_argument("--image_size", type=int, default=84)
    given = parser.parse_known_args(flags)[0]
    if not official.is_clone(given.official):
        parser.error(f"--official: {given.official} is not a clone of shlee625/CxGrad")
    if importlib.util.find_spec("torch") is None:
        parser.error("the official code needs torch: pip install torch")
    if given.episodes < 20 or given.episodes % 20:
        parser.error(f"--episodes is {given.episodes}; expected a multiple of 20")
    sides = {"ours": our_side, "official": official_side}
    arguments, result = interleaved.run("benchmarks.versus_official", parser, sides, flags)
    result |= {
        "ratio_median": result["official_seconds"] / result["ours_seconds"],
        "ratio_min": result["official_seconds_min"] / result["ours_seconds_min"],
        "memory_ratio": result["official_peak_mb"] / result["ours_peak_mb"],
    }
    keys = ["ratio_median", "ratio_min", "ours_seconds", "official_seconds", "ours_peak_mb", "official_peak_mb"]
    if arguments.what == "adaptation":
        for side in sides:
            key = f"{side}_seconds_600_episodes"
            result[key] = result[f"{side}_seconds"] * TEST_EPISODES / arguments.episodes
            keys.append(key)
    interleaved.report(arguments, result, keys)


if __name__ == "__main__":
    main(sys.argv[1:])
