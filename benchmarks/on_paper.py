"""The forms of many tasks on one accelerator (``benchmarks.task_forms``), compiled for one that is not here. No speed.

    python -m benchmarks.on_paper --target h100:1 --out FILE.json
    python -m benchmarks.on_paper --target v5e:1x1 --forms library "one task after the other" --out FILE.json
    python -m benchmarks.on_paper --target h100:1 --forms library --set model.precision=default
    python -m benchmarks.on_paper --target h100:1 --model resnet12 --forms library "one task after the other"

The program is the training iteration of ``benchmarks.ahead_of_time``: CxGrad, Conv-4 with 48 filters, 84×84, 4 tasks,
unless ``--learner``, ``--model`` and ``--set FIELD=VALUE`` say otherwise. A row tells what the program needs, and the
least time of an iteration that follows (``benchmarks.least_time``). For a GPU it also tells how often the host must
start something, which costs more than an operation of a CUDA graph.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jax.sharding import Mesh

from benchmarks import ahead_of_time
from benchmarks.least_time import host_starts, summary
from benchmarks.task_forms import FORMS, applied
from cxgrad_jax import learners
from cxgrad_jax.command_line import exit_status
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import factories
from cxgrad_jax.training.ahead_of_time import mesh_of

COLUMNS = {
    "compiling": lambda r: f"{r['compile_seconds']:.0f} s",
    "temporaries": lambda r: f"{r['temporary_bytes'] / 1e6:,.0f} MB",
    "convolutions, grouped": lambda r: f"{r['convolutions']}, {r['grouped_convolutions']}",
    "operations started": lambda r: f"{r['operations']:,}",
    "started by the host": lambda r: f"{r['host_starts']:,}" if "host_starts" in r else "",
    "GFLOP": lambda r: f"{r['gflop']:,.0f}",
    "GB moved": lambda r: f"{r['gbytes']:.1f}",
    "least time": lambda r: f"{r['least_ms']:.1f} ms",
    "compiler's estimate": lambda r: f"{r['compiler_ms']:.1f} ms" if r["compiler_ms"] else "",
}


def record_of(name: str, given: argparse.Namespace, mesh: Mesh, dump: Path) -> tuple[dict[str, Any], str]:
    """Compiles the iteration in a form: what ``ahead_of_time`` and ``least_time`` count, and the program's text."""
    form = FORMS[name]
    changes = [f"parallel.tasks_per_chunk={form.at_once}", *given.set]
    configuration = ahead_of_time.configured(given.learner, given.model, given.small, changes)
    with applied(form):
        images = 20 if given.small else ahead_of_time.IMAGES
        record, text = ahead_of_time.compiled(configuration, given.target, mesh, images)
    paper = summary(text, given.target.partition(":")[0], configuration.train.iterations_per_dispatch)
    if dumped := sorted(dump.glob("*.thunk_sequence_after_thunk_passes.txt"), key=lambda path: path.stat().st_mtime):
        paper["host_starts"] = host_starts(dumped[-1].read_text(), configuration.learner.num_steps)
    return {"form": name, **record, **paper}, text


def main(flags: list[str]) -> int:
    """Compiles, prints a row for each form and writes; the exit status."""
    parser = argparse.ArgumentParser(prog="on_paper", description="The forms of many tasks on one accelerator.")
    parser.add_argument("--target", required=True, help="h100:1, v5e:1x1 or v6e:1x1")
    parser.add_argument("--learner", default="cxgrad", choices=learners.NAMES)
    parser.add_argument("--model", default="conv4", choices=list(factories.MODELS))
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS), metavar="FORM")
    parser.add_argument("--small", action="store_true", help="16 pixels, 8 filters, 1 inner step, 2 iterations")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the configuration")
    parser.add_argument("--texts", type=Path, metavar="FOLDER", help="receives the optimised programs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON, written after every form")
    given = parser.parse_args(flags)
    for folder in (given.texts, given.out and given.out.parent):
        if folder and not folder.is_dir():
            parser.error(f"folder {folder} does not exist")
    records = []

    def action(dump):
        mesh = mesh_of(given.target)
        if mesh.size > 1:
            raise UserError(
                f"--target is {given.target!r}, {mesh.size} devices; expected one, such as h100:1 or v5e:1x1"
            )
        print(f"{mesh.devices.flat[0].device_kind}, one outer iteration. {ahead_of_time.NO_SPEED}")
        print("| tasks | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 1), sep="\n", flush=True)
        for name in given.forms:
            record, text = record_of(name, given, mesh, dump)
            print(f"| {name} | " + " | ".join(show(record) for show in COLUMNS.values()) + " |", flush=True)
            records.append(record)
            if given.texts:
                (given.texts / f"{given.target.partition(':')[0]} {name}.hlo".replace(" ", "_")).write_text(text)
            if given.out:
                given.out.write_text(json.dumps(records, indent=2) + "\n")

    with TemporaryDirectory() as folder:
        flags_of_xla = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags_of_xla} --xla_dump_to={folder} --xla_dump_hlo_pass_re=NONE"
        return exit_status(lambda: action(Path(folder)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
