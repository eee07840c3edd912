"""Time and memory of ``cxgrad photos`` on photos of a folder, each command in a process of its own.

    python -m benchmarks.photos_time FOLDER --rounds 3 --out FILE.json

``FOLDER`` holds ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``. Measured are ``fit`` of five photos of each class,
``predict`` of one photo and of all test photos, with compiled programs from an earlier round. What a further photo
costs is the difference of the two. Memory is the largest resident set.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.interleaved import machine
from cxgrad_jax import photos


def measure(*words: str | Path) -> tuple[float, float, float]:
    """Seconds by the clock, seconds of the processor, and megabytes, of one command."""
    command = [sys.executable, "-m", "cxgrad_jax.photos_cli", *map(str, words)]
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, place, os.devnull, os.O_WRONLY, 0) for place in (1, 2)]
    _, status, used = os.wait4(os.posix_spawn(command[0], command, os.environ, file_actions=quiet), 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"photos_time: {' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main(flags: list[str]) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="photos_time", description="Time and memory of cxgrad photos.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args(flags)
    test = photos.photos_in(given.folder / "test")
    result: dict[str, list] = {"fit": [], "predict one": [], f"predict {len(test)}": []}
    with tempfile.TemporaryDirectory() as place:
        few, shop = Path(place, "few"), Path(place, "shop.safetensors")
        found = photos.labelled_photos(given.folder / "train")
        for label, name in enumerate(found.class_names):
            (few / name).mkdir(parents=True)
            own = [path for path, each in zip(found.paths, found.labels, strict=True) if each == label]
            for path in own[:5]:
                shutil.copy(path, few / name)
        for number in range(given.rounds + 1):
            figures = (
                measure("fit", few, "--out", shop),
                measure("predict", shop, test[0], "--csv", f"{place}/a.csv"),
                measure("predict", shop, given.folder / "test", "--csv", f"{place}/b.csv"),
            )
            if number:  # the first round fills the cache
                for name, figure in zip(result, figures, strict=True):
                    result[name].append([round(each, 2) for each in figure])
    for name, rounds in result.items():
        clock, processor, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:<14}{clock:6.1f} s, {processor:6.1f} s of the processor, {memory:5.0f} MB")
    one, many = (statistics.median(each[0] for each in result[name]) for name in list(result)[1:])
    print(f"a further photo {1000 * (many - one) / (len(test) - 1):.0f} ms")
    if given.out:
        given.out.write_text(json.dumps({"machine": machine(), "rounds": result}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
