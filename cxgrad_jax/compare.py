"""``python -m cxgrad_jax.compare --configs NAME[:PRESET] ... --workdir=DIR [--seeds N] [--config.FIELD=VALUE ...]``

The program trains, resumes or merely reads the run of every configuration, one after the other, in ``DIR/NAME``. NAME
is the name of the file, with ``-PRESET`` where one is given. Then it writes ``DIR/comparison.md``, ``.csv`` and
``.tex``. They have test accuracies with their 95 % intervals, differences from the first configuration on the same test
episodes, parameters, time and memory of a training iteration, and the number that the CxGrad paper prints. With
``--seeds N`` each configuration has N runs, in ``DIR/NAME/seed_0``, …, and the table has their mean. Overrides apply to
every configuration that has the field.

The exit status is that of ``cxgrad_jax.main``: 0 done, 2 a user's mistake, 130 interrupted (run again to go on), 1 a
defect.
"""

from cxgrad_jax import runtime
from cxgrad_jax.command_line import (
    Parser,
    a_path,
    add_verbosity,
    at_least_one,
    check_several_runs,
    exit_status,
    overrides,
    start,
)
from cxgrad_jax.errors import UserError
from cxgrad_jax.report.comparison import compare
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.config_files import config_name, load_config


def load_all(specs: list[str], flags: list[str]) -> dict[str, ConfigDict]:
    """Loads the configurations ``NAME[:PRESET]`` and applies the overrides in ``flags``; returns them by name.

    Raises:
      UserError: a file is missing or fails, two configurations have one name, or an override does not fit.
    """
    configs: dict[str, ConfigDict] = {}
    for spec in specs:
        if config_name(spec) in configs:
            raise UserError(f"--configs names {config_name(spec)} twice; each run needs a folder of its own")
        configs[config_name(spec)] = load_config(spec)
    change = overrides(flags, configs.values(), "--configs, --workdir, --seeds, --wide, --verbosity")
    for config in configs.values():
        change(config)
    return configs


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        flags = Parser(
            prog="python -m cxgrad_jax.compare",
            usage="%(prog)s --configs NAME[:PRESET] ... --workdir=DIR [--seeds N] [--wide] [--config.FIELD=VALUE ...]",
            description="Train or resume several configurations under one protocol, and write one table.",
            epilog="--config.FIELD=VALUE overrides a field of every configuration that has it.",
            allow_abbrev=False,
        )
        flags.add_argument(
            "--configs", nargs="+", action="extend", metavar="NAME[:PRESET]",
            help="files or names; the first is compared with",
        )  # fmt: skip
        flags.add_argument(
            "--workdir", type=a_path, metavar="DIR", help="receives DIR/NAME and comparison.{md,csv,tex}"
        )
        flags.add_argument("--seeds", type=at_least_one, metavar="N", help="train N runs of each, seeds 0 to N - 1")
        flags.add_argument("--wide", action="store_true", help="all columns in comparison.tex, not a paper's two")
        add_verbosity(flags)
        given, others = flags.parse_known_args(arguments)
        if not given.configs:
            raise UserError("--configs is missing; give those to compare, such as --configs mini_1shot maml_mini_1shot")
        check_several_runs(given, others, "comparison")
        configs = load_all(given.configs, others)
        runtime.let_devices_be_late()
        print(compare(configs, given.workdir, seeds=given.seeds, wide=given.wide), end="")

    return exit_status(action)


if __name__ == "__main__":
    start(run)
