"""``python -m cxgrad_jax.main --config=configs/NAME.py --workdir=DIR [--mode=train|evaluate] [--config.FIELD=VALUE …]``

Exit status: 0 done, 2 a user's mistake (one line on stderr), 130 interrupted (checkpoint saved), 1 a defect.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from cxgrad_jax import configuration
from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluate import evaluate
from cxgrad_jax.train import Interrupted, train

MODES = {"train": train, "evaluate": evaluate}

flags.DEFINE_enum("mode", "train", list(MODES), "train (resumes, validates, tests at the end) or evaluate a run")
flags.DEFINE_string("workdir", None, "folder of the run: configuration, metrics, checkpoints, results")
flags.DEFINE_bool("distributed", False, "take part in a multi-process run: calls jax.distributed.initialize()")


def parse(arguments: list[str]) -> tuple[ConfigDict, Path, str]:
    """Reads the command line: (configuration, workdir, mode).

    Without ``--config`` the configuration is the embedded default, or in ``--mode=evaluate`` the run's own.

    Raises:
      UserError: an unknown flag, field or file, or a value of the wrong type.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "mode", "workdir"):
        early.add_argument(f"--{name}")
    given, _ = early.parse_known_args(arguments)
    if given.config:
        config_flags.DEFINE_config_file("config", lock_config=True)
    elif given.mode == "evaluate" and given.workdir:
        config_flags.DEFINE_config_dict("config", saved_config(Path(given.workdir)), lock_config=True)
    else:
        config_flags.DEFINE_config_dict("config", configuration.glyphs_config(), lock_config=True)
    try:
        rest = flags.FLAGS([sys.argv[0], *arguments])[1:]
    except UserError:
        raise
    except Exception as error:  # a configuration file is the user's code and may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"{type(error).__name__}: {reason}; see --help and the file of --config") from None
    if rest:
        raise UserError(f"argument {rest[0]!r} is unknown; expected --config=FILE --workdir=DIR --mode=MODE")
    if not flags.FLAGS.workdir:
        raise UserError("--workdir is missing; give the folder of the run, such as --workdir=runs/first")
    return flags.FLAGS.config, Path(flags.FLAGS.workdir), flags.FLAGS.mode


def saved_config(workdir: Path) -> ConfigDict:
    """The configuration of a run.

    Raises:
      UserError: no run is there, or its ``config.json`` is damaged.
    """
    path = workdir / "config.json"
    try:
        return configuration.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; --workdir must be the folder of a run") from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; restore it or train the run again") from None


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file that it opens
    try:
        config, workdir, mode = parse(arguments)
        if flags.FLAGS.distributed:
            jax.distributed.initialize()
        configuration.check(config)
        results = MODES[mode](config, workdir)
    except UserError as error:
        print(f"cxgrad_jax: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as interruption:
        print(f"cxgrad_jax: {interruption or 'interrupted'}", file=sys.stderr)
        return 130
    print(
        f"test accuracy {100 * results['test_accuracy']:.2f} % ± {100 * results['test_ci95_tasks']:.2f} "
        f"({results['num_tasks']} tasks of {results['test_data']}, ensemble of {results['ensemble_size']})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
