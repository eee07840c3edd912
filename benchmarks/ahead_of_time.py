"""Compiles the training step for an accelerator that is not here, and tells what is in the program. No speed.

    python -m benchmarks.ahead_of_time --target v5e:2x2                      four TPU v5e; or v6e:2x2; 1x1 is one
    python -m benchmarks.ahead_of_time --target h100                         four H100; h100:1 is one
    python -m benchmarks.ahead_of_time --target h100:1 --against parallel.tasks_per_chunk=1

The function is the one that ``cxgrad_jax.main`` runs (``training.build.build_program``): CxGrad with Conv-4 on
miniImageNet unless ``--learner``, ``--model`` and ``--set FIELD=VALUE`` say otherwise, 50 iterations in a dispatch,
with abstract arguments: nothing is computed. ``--against FIELD=VALUE`` compiles the same with one change beside it.
``--small`` is the size for continuous integration. All numbers are of one device.

A TPU needs ``libtpu``, a GPU ``jax-cuda12-plugin`` and ``jax-cuda12-pjrt``, each of the version that fits JAX's, and
neither a driver nor another package. For a TPU the compiler works at its lowest effort.
"""

import argparse
import ast
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cxgrad_jax import learners
from cxgrad_jax.command_line import exit_status
from cxgrad_jax.data import ImageStore
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import ahead_of_time, config, factories
from cxgrad_jax.training.checks import check

CLASSES, IMAGES = 64, 600  # of the training classes of miniImageNet
NO_SPEED = "None of this is a speed: nothing ran on the device."


def configured(learner: str, model: str, small: bool, changes: Sequence[str]) -> config.ConfigDict:
    """The configuration of a training with ``changes``, each ``FIELD=VALUE``."""
    made = config.base_config()
    made.learner, made.model = config.learner_config(learner), config.model_config(model)
    made.train.iterations_per_dispatch = 50
    if small:
        made.data.image_size, made.train.iterations_per_dispatch, made.episode.query = 16, 2, 2
        sizes = {"model.features": 8, "model.channels": (4, 8, 8, 8), "learner.num_steps": 1, "learner.context_dim": 4}
        made.update_from_flattened_dict({k: v for k, v in sizes.items() if k in config.fields(made)})
    for change in changes:
        field, _, text = change.partition("=")
        if field not in config.fields(made):
            raise UserError(f"{field} is not a field of the configuration")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = {"true": True, "false": False}.get(text, text)
        made.update_from_flattened_dict({field: value})
    check(made)
    return made


def store_of(size: int, images: int) -> ImageStore:
    """A store of the shape of miniImageNet's training images that takes no memory."""
    pixels = np.broadcast_to(np.uint8(0), (CLASSES * images, size, size, 3))
    return ImageStore(pixels, np.arange(0, len(pixels) + 1, images, dtype=np.int32), tuple(map(str, range(CLASSES))))


def counts(text: str, images: int) -> dict[str, int]:
    """Operations by kind in an optimised program; one in the body of a loop counts once.

    A TPU's compiler makes the groups of a convolution positions along an axis of their own, which it dilates.

    Args:
      text: of the program.
      images: in the store, whose copies are what gives an array of bytes of this many rows.
    """
    lines = text.splitlines()
    shape = rf"u8\[{images},[\d,]*\]"

    def number(pattern, among=lines):
        return sum(bool(re.search(pattern, line)) for line in among)

    convolutions = [line for line in lines if re.search(r" convolution\(|\"__cudnn\$conv", line)]
    return {
        "all_reduce": number(r" all-reduce(?:-start)?\("),
        "all_gather": number(r" all-gather(?:-start)?\("),
        "store_copies": number(rf"= \(?{shape}\S* .*?(?:copy|copy-start|transpose|fusion)\("),
        "host_transfers": number(r" (?:infeed|outfeed|send|recv)\("),
        "convolutions": len(convolutions),
        "grouped_convolutions": number(r"(?:feature|batch)_group_count=(?!1\b)\d|lhs_dilate=", convolutions),
        "copies": number(r" copy(?:-start)?\("),
        "loops": number(r" while\("),
    }


def compiled(made: config.ConfigDict, target: str, mesh: Mesh, images: int) -> tuple[dict[str, Any], str]:
    """Compiles one program. A record tells what is in it; its text follows."""
    store = store_of(made.data.image_size, images)
    lowered, options = (
        ahead_of_time.lower_training(made, store, mesh, made.train.iterations_per_dispatch),
        ahead_of_time.compiler_options(mesh),
    )
    start = time.perf_counter()
    program = lowered.compile(compiler_options=options or None)
    seconds, memory, text = time.perf_counter() - start, program.memory_analysis(), program.as_text()
    record = {
        "target": target,
        "learner": made.learner.name,
        "model": made.model.name,
        "devices": mesh.size,
        "tasks": made.train.meta_batch,
        "compiler_effort": "lowest" if options else "normal",
        "compile_seconds": round(seconds, 1),
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        **counts(text, len(store.images)),
    }
    return record, text


def show(records: Sequence[dict[str, Any]]) -> None:
    """A table with a column for each program."""
    for name in records[0]:
        cells = [f"{record[name] / 1e6:.1f} MB" if name.endswith("_bytes") else str(record[name]) for record in records]
        print(f"{name.removesuffix('_bytes'):22}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def main(flags: list[str]) -> int:
    """Compiles, prints and writes; the exit status."""
    parser = argparse.ArgumentParser(prog="ahead_of_time", description="Compile for an accelerator that is not here.")
    parser.add_argument("--target", required=True, help="v5e:2x2, v6e:2x2, h100 or h100:N")
    parser.add_argument("--learner", default="cxgrad", choices=learners.NAMES)
    parser.add_argument("--model", default="conv4", choices=list(factories.MODELS))
    parser.add_argument("--all", action="store_true", help="every learner")
    parser.add_argument("--small", action="store_true", help="16 pixels, 8 filters, 1 inner step, 2 iterations")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the configuration")
    parser.add_argument("--against", metavar="FIELD=VALUE", help="compile with this change, too, and compare")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a list with a record for each program")
    given = parser.parse_args(flags)
    if given.json and not given.json.parent.is_dir():
        parser.error(f"--json: folder {given.json.parent} does not exist")
    records = []

    def action():
        mesh = ahead_of_time.mesh_of(given.target)
        print(f"{mesh.size} × {mesh.devices.flat[0].device_kind}, numbers of one device. {NO_SPEED}", flush=True)
        images = 20 if given.small else IMAGES
        for learner in learners.NAMES if given.all else [given.learner]:
            made = []
            for changes in ([], [given.against]) if given.against else ([],):
                configuration = configured(learner, given.model, given.small, [*given.set, *changes])
                if configuration.train.meta_batch % mesh.size:
                    configuration.train.meta_batch = mesh.size
                record, _ = compiled(configuration, given.target, mesh, images)
                made.append(record | ({"changed": changes[0] if changes else ""} if given.against else {}))
            show(made)
            records.extend(made)
            if given.json:
                given.json.write_text(json.dumps(records, indent=2) + "\n")

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
