"""``python -m cxgrad_jax.main [--config=NAME[:PRESET]] [--workdir=DIR] [--mode=MODE] [--config.FIELD=VALUE …]``

NAME is a file or the name of a configuration of this project, such as ``tiered_1shot`` or ``baselines/alfa``. MODE is
one of these:

- ``train``: trains or resumes a run, and tests it;
- ``pretrain``: trains a classifier whose body a run may start from;
- ``evaluate``: tests a run again, or asks it a further ``--question``;
- ``analyse``: writes a report of some runs, with ``--workdir=DIR`` once for each.

Without ``--workdir`` the folder of the run is ``runs/NAME``, where NAME is the name of the configuration. With a preset
it is ``runs/NAME-PRESET``.

Exit status: 0 done, 2 a user's mistake (one line on stderr), 130 interrupted (checkpoint saved), 1 a defect.
"""

import argparse
from pathlib import Path

from cxgrad_jax import runtime
from cxgrad_jax.command_line import Parser, a_path, add_verbosity, exit_status, override, parts_named, start
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.ahead_of_time import mesh_of
from cxgrad_jax.training.asking import QUESTIONS, ask_run
from cxgrad_jax.training.build import is_pretraining
from cxgrad_jax.training.checks import check
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.config_files import config_name, load_config
from cxgrad_jax.training.dry_run import dry_run
from cxgrad_jax.training.evaluate import evaluate_run
from cxgrad_jax.training.train import train
from cxgrad_jax.training.workdir import read_config

MODES = ("train", "pretrain", "evaluate", "analyse")
# The name of the embedded default configuration of each mode.
DEFAULTS = dict.fromkeys(MODES, "glyphs_1shot") | {"pretrain": "pretrain_glyphs"}


def parse(arguments: list[str]) -> tuple[ConfigDict, argparse.Namespace]:
    """Reads the command line: the configuration with its overrides, and the other flags.

    Without ``--config`` the modes ``train`` and ``pretrain`` take the embedded default, and the other modes take the
    configuration of the (first) run. In ``--mode=analyse`` the configuration also has a section ``analysis``.

    Raises:
      UserError: a flag, field or file is unknown, a value has the wrong type, or a flag does not fit the mode.
    """
    flags = _flags(_mode_named(arguments))
    given = flags.parse_known_args(arguments)[0]
    workdir = given.workdir[0] if given.workdir else Path("runs", DEFAULTS[given.mode])
    asks_for_help = bool({"-h", "--help"} & set(arguments))
    if given.config is not None:
        config = load_config(given.config)
    elif given.mode == "pretrain":
        config = configuration.pretrain_glyphs_config()
    elif given.mode == "train" or (asks_for_help and not (workdir / "config.json").exists()):
        config = configuration.glyphs_config()
    else:
        config = read_config(workdir, named=parts_named(arguments).values())
    if given.mode == "analyse":
        config.analysis = configuration.analysis_config()

    given = override(config, arguments, flags)
    name = DEFAULTS[given.mode] if given.config is None else config_name(given.config)
    given.workdir = given.workdir or [Path("runs", name)]
    _check(config, given)
    return config, given


def _mode_named(arguments: list[str]) -> str | None:
    """The mode that a flag names. A command of ``cxgrad`` does so, too."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", choices=MODES)
    return parser.parse_known_args(arguments)[0].mode


def _flags(mode: str | None) -> Parser:
    """The parser of all flags but the fields of the configuration.

    It takes the same flags in every mode. Its help has those of ``mode``, or all if ``mode`` is None.
    """
    program = f"cxgrad {mode}" if mode else "python -m cxgrad_jax.main [--mode=MODE]"
    usage = f"{program} [--workdir=DIR] [--config=NAME] [--config.FIELD=VALUE ...]"
    flags = Parser(usage=usage, add_help=False, allow_abbrev=False)

    def shown(text: str, *modes: str) -> str:
        return text if mode in (None, *modes) else argparse.SUPPRESS

    flags.add_argument(
        "--config", metavar="NAME[:PRESET]",
        help="a configuration: a file or a name, such as mini_1shot; without: glyphs, or the run's own",
    )  # fmt: skip
    flags.add_argument(
        "--workdir", type=a_path, action="append", metavar="DIR",
        help="folder of the run (without: runs/NAME, with a preset runs/NAME-PRESET); analyse takes several",
    )  # fmt: skip
    flags.add_argument(
        "--mode", choices=MODES, default="train",
        help=shown("train (or resume) and test; pretrain a body; test only; or analyse runs"),
    )  # fmt: skip
    flags.add_argument(
        "--question", choices=sorted(QUESTIONS),
        help=shown(
            "of evaluate: accuracy after every inner step, with parts adapted, or over all orders of the classes",
            "evaluate",
        ),
    )  # fmt: skip
    flags.add_argument(
        "--dry_run", nargs="?", const="", metavar="DEVICE",
        help=shown(
            "only say how much memory a training would take, here or on an absent v5e:2x2, v6e:2x2 or h100:N", "train"
        ),
    )  # fmt: skip
    flags.add_argument(
        "--distributed", action="store_true",
        help="one of several processes, found on a cluster, by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
        "JAX_PROCESS_ID, or by all of:",
    )  # fmt: skip
    flags.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, the same in all processes")
    flags.add_argument("--num_processes", type=int, metavar="N")
    flags.add_argument("--process_id", type=int, metavar="I", help="0 to N - 1")
    add_verbosity(flags)
    return flags


def _check(config: ConfigDict, given: argparse.Namespace) -> None:
    """Refuses flags that do not fit the mode."""
    if not all(workdir.name for workdir in given.workdir):
        raise UserError("--workdir is /; give the folder of the run, such as --workdir=runs/first")
    if given.mode in ("train", "pretrain") and (given.mode == "pretrain") != is_pretraining(config):
        kind, other = ("not a", "train") if given.mode == "pretrain" else ("a", "pretrain")
        raise UserError(f"--config={given.config} is {kind} pre-training; run it with --mode={other}")
    if given.question and given.mode != "evaluate":
        raise UserError(f"--question={given.question} is of --mode=evaluate, not of --mode={given.mode}")
    if given.dry_run is not None and given.mode != "train":
        raise UserError(f"--dry_run is of --mode=train, not of --mode={given.mode}")
    if len(given.workdir) > 1 and given.mode != "analyse":
        raise UserError(f"--workdir is given {len(given.workdir)} times; only --mode=analyse takes several runs")


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        config, given = parse(arguments)
        processes = given.coordinator, given.num_processes, given.process_id
        if given.distributed or any(value is not None for value in processes):
            runtime.join_processes(*processes)
        else:
            runtime.let_devices_be_late()
        absent = mesh_of(given.dry_run) if given.dry_run else None  # before the first use of a device
        options = config.get("analysis")
        if options:
            del config.analysis
        check(config)
        if options:
            from cxgrad_jax.report.analysis import analyse  # it imports matplotlib, which training does not need

            print(f"report: {analyse(config, options, given.workdir)}")
            return
        (workdir,) = given.workdir
        if given.dry_run is not None:
            dry_run(config, given.dry_run, absent)
        elif given.question:
            ask_run(config, workdir, given.question)
        else:
            (evaluate_run if given.mode == "evaluate" else train)(config, workdir)

    return exit_status(action)


if __name__ == "__main__":
    start(run)
