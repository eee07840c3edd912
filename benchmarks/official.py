"""The official PyTorch code of CxGrad (a clone of shlee625/CxGrad), with the configuration that it ships.

    python -m benchmarks.official --official PATH --setting mini_1shot --device cuda

Random images of the given size are ready on the host; the code itself takes them to the device. Prints seconds of a
training iteration and peak memory. Needs torch. ``benchmarks.versus_official`` has it as one side.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

WAY, QUERY = 5, 15
CONFIGS = {f"mini_{shot}shot": f"experiment_config/mini_imagenet_5way_{shot}shot/CxGrad_4conv.json" for shot in (1, 5)}


def is_clone(folder: Path) -> bool:
    """Whether the folder has the official code."""
    return all((folder / path).is_file() for path in CONFIGS.values())


def rounds(folder: Path, setting: str, device: str, size: int) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """One training iteration, one evaluation of as many episodes, and how many those are.

    Args:
      folder: the clone.
      setting: a key of ``CONFIGS``.
      device: ``"cpu"`` or ``"cuda"``.
      size: pixels a side.
    """
    sys.path.insert(0, str(folder))
    import torch  # pyright: ignore[reportMissingImports]
    from few_shot_learning_system import MAMLFewShotClassifier  # pyright: ignore[reportMissingImports]

    fields = json.loads((folder / CONFIGS[setting]).read_text())
    fields |= {"use_cuda": device == "cuda", "seed": 0, "image_height": size, "image_width": size}
    model = MAMLFewShotClassifier((2, 3, size, size), torch.device(device), SimpleNamespace(**fields))
    random, tasks, shot = np.random.default_rng(0), fields["batch_size"], fields["num_samples_per_class"]

    def images(per_class):
        return random.random((tasks, WAY, per_class, 3, size, size), dtype=np.float32)

    def labels(per_class):
        return np.broadcast_to(np.arange(WAY)[:, None], (tasks, WAY, per_class)).copy()

    batch = (images(shot), images(QUERY), labels(shot), labels(QUERY))
    return lambda: model.run_train_iter(batch, 0, 0), lambda: model.run_validation_iter(batch, 0), tasks


def main(flags: list[str]) -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(prog="official", description="The official PyTorch code of CxGrad.")
    parser.add_argument("--official", required=True, type=Path, help="a clone of github.com/shlee625/CxGrad")
    parser.add_argument("--setting", choices=list(CONFIGS), default="mini_1shot")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args(flags)
    if not is_clone(given.official):
        parser.error(f"--official: {given.official} is not a clone of shlee625/CxGrad")
    import torch  # pyright: ignore[reportMissingImports]

    iteration = rounds(given.official, given.setting, given.device, given.image_size)[0]
    on_card, seconds = given.device == "cuda", []
    for _ in range(given.rounds + 1):
        start = time.perf_counter()
        iteration()
        if on_card:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if on_card else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    first, *others = seconds
    found = {"seconds": statistics.median(others), "first_seconds": first, "peak_bytes": peak}
    print("\n" + json.dumps(found | {"torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
