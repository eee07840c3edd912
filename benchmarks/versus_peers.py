"""MAML here against MAML in PyTorch, on this machine, interleaved, on the same shapes.

    python -m benchmarks.versus_peers --setting maml_mini_1shot --rounds 5 --out FILE.json
    python -m benchmarks.versus_peers --setting maml_cifar_fs_1shot --what adaptation --rounds 5 --out FILE.json

The other sides are ``benchmarks.torch_maml``: ``torch_func``, all tasks vectorised by ``torch.func``; ``torch_loop``, a
task after the other by ``torch.autograd``; and with ``--learn2learn FOLDER``, its unpacked source distribution,
learn2learn's ``MAML``. A round is a training iteration, or with ``--what adaptation`` the inner loops of 20 episodes
and the predictions of their queries; PyTorch takes them in meta-batches.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks import interleaved, ours, torch_maml
from cxgrad_jax.evaluation import EPISODES_AT_ONCE

SETTINGS = ("maml_mini_1shot", "maml_mini_5shot", "maml_cifar_fs_1shot", "maml_cifar_fs_5shot")


def config_of(arguments: argparse.Namespace):
    """The configuration of all sides."""
    changes = {"data__image_size": arguments.image_size} if arguments.image_size else {}
    return ours.prepare(arguments.setting, **changes)


def our_side(arguments: argparse.Namespace):
    """This project's round."""
    import jax

    config = config_of(arguments)
    one_round = ours.training(config) if arguments.what == "training" else ours.adaptation(config, EPISODES_AT_ONCE)
    return one_round, {"jax": jax.__version__}


def shapes_of(arguments: argparse.Namespace) -> dict[str, int]:
    """The sizes that all sides share."""
    config = config_of(arguments)
    return {
        "shot": config.episode.shot, "size": config.data.image_size, "tasks": config.train.meta_batch,
        "features": config.model.features, "steps": config.learner.num_steps,
    }  # fmt: skip


def whole_round(one_round, arguments: argparse.Namespace):
    """A round of adaptation takes as many meta-batches as ours has episodes."""
    rounds = EPISODES_AT_ONCE // shapes_of(arguments)["tasks"] if arguments.what == "adaptation" else 1
    return lambda: [one_round() for _ in range(rounds)]


def torch_side(style: str):
    """The round of ``torch_maml`` in a style."""

    def side(arguments):
        import torch  # pyright: ignore[reportMissingImports]

        one_round = torch_maml.round_of(style, arguments.what, "cpu", **shapes_of(arguments))
        return whole_round(one_round, arguments), {"torch": torch.__version__}

    return side


def learn2learn_side(arguments: argparse.Namespace):
    """The round of learn2learn."""
    one_round = torch_maml.learn2learn_round(arguments.learn2learn, arguments.what, **shapes_of(arguments))
    return whole_round(one_round, arguments), {"learn2learn": arguments.learn2learn.name}


def main(flags: list[str]) -> None:
    """Compares and reports; exits with status 2 where torch is missing."""
    parser = argparse.ArgumentParser(prog="versus_peers", description="Our MAML against PyTorch's.")
    parser.add_argument("--setting", choices=SETTINGS, default="maml_mini_1shot")
    parser.add_argument("--what", choices=["training", "adaptation"], default="training")
    parser.add_argument("--image_size", type=int, default=0, help="pixels a side; 0 for the setting's")
    parser.add_argument("--learn2learn", type=Path, help="its source distribution, unpacked")
    folder = parser.parse_known_args(flags)[0].learn2learn
    if folder and not (folder / "learn2learn/algorithms/maml.py").is_file():
        parser.error(f"--learn2learn: {folder} has no learn2learn/algorithms/maml.py")
    if importlib.util.find_spec("torch") is None:
        parser.error("PyTorch is missing: pip install torch")
    sides = {"ours": our_side, "torch_func": torch_side("vmap"), "torch_loop": torch_side("loop")}
    sides |= {"learn2learn": learn2learn_side} if folder else {}
    arguments, result = interleaved.run("benchmarks.versus_peers", parser, sides, flags)
    others = [side for side in sides if side != "ours"]
    result |= {f"{side}_ratio_median": result[f"{side}_seconds"] / result["ours_seconds"] for side in others}
    keys = [f"{side}_ratio_median" for side in others]
    keys += [f"{side}_{what}" for side in sides for what in ("seconds", "peak_mb")]
    interleaved.report(arguments, result, keys)


if __name__ == "__main__":
    main(sys.argv[1:])
