"""Training iterations of several checkouts of this project in turns, such as an old commit against a new one.

    git worktree add ../old COMMIT
    python -m benchmarks.trees --setting glyphs_1shot --rounds 100 ../old .
    python -m benchmarks.trees --what adaptation --rounds 12 ../old .        adaptation to 20 episodes

Each checkout has a process of its own, which waits while another one works. The order turns round after every round.
Prints the median, the lower quartile and the fastest, in milliseconds, and the processor's time.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

SIDE = """
import sys, time
import jax
from benchmarks import ours
setting, what = sys.argv[1:]
config = ours.prepare(setting)
begin = ours.training(config) if what == "training" else ours.adaptation(config, 20)
iteration = lambda: jax.block_until_ready(begin())
for _ in range(2):
    iteration()
print("ready", flush=True)
for _ in sys.stdin:
    start, used = time.perf_counter(), time.process_time()
    iteration()
    print(time.perf_counter() - start, time.process_time() - used, flush=True)
"""


def start(tree: Path, setting: str, what: str) -> subprocess.Popen[str]:
    """A process that makes an iteration (``what``) for every line that it reads, warm already.

    Raises:
      SystemExit: the checkout has no such setting, or another fault.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SIDE, setting, what], cwd=tree, env={**os.environ, "PYTHONPATH": str(tree.resolve())},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    if process.stdout.readline().strip() != "ready":
        sys.exit(f"{tree} ended with status {process.wait()}")
    return process


def main(flags: list[str]) -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(prog="trees", description="Checkouts of this project in turns.")
    parser.add_argument("--setting", default="mini_1shot", help="the name of a configuration that all checkouts have")
    parser.add_argument("--what", choices=("training", "adaptation"), default="training")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("trees", nargs="+", type=Path, help="checkouts")
    given = parser.parse_args(flags)
    for tree in given.trees:
        if not (tree / "benchmarks/ours.py").is_file():
            parser.error(f"{tree} has no benchmarks/ours.py")
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}; expected at least 1")
    processes = [start(tree, given.setting, given.what) for tree in given.trees]
    found = [[] for _ in processes]
    for number in range(given.rounds):
        for i in range(len(processes))[:: -1 if number % 2 else 1]:
            asked, answer = processes[i].stdin, processes[i].stdout
            assert asked and answer
            print("go", file=asked, flush=True)
            found[i].append([1000 * float(part) for part in answer.readline().split()])
    for process in processes:
        process.kill()
    for tree, rounds in zip(given.trees, found, strict=True):
        wall, used = (sorted(column) for column in zip(*rounds, strict=True))
        parts = (statistics.median(wall), wall[len(wall) // 4], wall[0], statistics.median(used))
        print("{}: median {:.1f}, quartile {:.1f}, fastest {:.1f}, processor {:.1f} ms".format(tree, *parts))


if __name__ == "__main__":
    main(sys.argv[1:])
