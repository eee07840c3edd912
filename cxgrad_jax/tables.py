"""``python -m cxgrad_jax.tables NUMBER --workdir=DIR [--seeds N] [--config.FIELD=VALUE ...]``: the paper's tables.

The program trains, resumes or merely reads the run of every cell, and writes ``DIR/table_NUMBER.md``, ``.csv`` and
``.tex``. They have the test accuracy measured here with its 95 % intervals, and the published number beside it. The
folder of a run is ``DIR/DATA_SHOT/NAME``, or ``seed_0``, … in it with ``--seeds N``. A run serves every table that it
belongs to: Table 2 tests the runs of Table 1, and the ablations share CxGrad's. ``norm`` instead of a number is the
ablation over the normalisation. Overrides apply to all cells: ``--config.data.name=cifar_fs
--config.data.image_size=32 --config.train.iterations=2000`` makes a small table on other data.

The exit status is that of ``cxgrad_jax.main``.
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
from cxgrad_jax.report.paper_cells import TABLES, configurations
from cxgrad_jax.report.paper_tables import make


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        flags = Parser(
            prog="python -m cxgrad_jax.tables",
            usage="%(prog)s NUMBER --workdir=DIR [--seeds N] [--preset=paper] [--published_only] [--wide] "
            "[--config.FIELD=VALUE ...]",
            description="Train or resume the runs of a table of the CxGrad paper, and write it.",
            epilog="--config.FIELD=VALUE overrides a field in all cells that have it.",
            allow_abbrev=False,
        )
        flags.add_argument("number", choices=list(TABLES), metavar="NUMBER", help="of the table, 1 to 7, or norm")
        flags.add_argument(
            "--workdir", type=a_path, metavar="DIR", help="receives the runs and table_NUMBER.{md,csv,tex}"
        )
        flags.add_argument("--seeds", type=at_least_one, metavar="N", help="N runs a cell, seeds 0 to N - 1")
        flags.add_argument("--preset", choices=("paper",), help="the paper's text where it disagrees with its code")
        flags.add_argument("--published_only", action="store_true", help="skip the cells that the paper leaves blank")
        flags.add_argument("--wide", action="store_true", help="the published numbers in table_NUMBER.tex, too")
        add_verbosity(flags)
        given, others = flags.parse_known_args(arguments)
        check_several_runs(given, others, "tables")
        ours = "--workdir, --seeds, --preset, --published_only, --wide, --verbosity"
        change = overrides(others, configurations(given.number), ours)
        runtime.let_devices_be_late()
        options = {name: getattr(given, name) for name in ("preset", "seeds", "published_only", "wide")}
        print(make(given.number, given.workdir, change, **options), end="")

    return exit_status(action)


if __name__ == "__main__":
    start(run)
