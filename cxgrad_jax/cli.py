"""``cxgrad COMMAND [FLAG ...]``: the programs as one console command.

Each command runs the module that ``python -m`` runs, in this process, with the same flags and exit statuses.
"""

import difflib
import runpy
import sys

from cxgrad_jax.streams import make_lasting, status_of_streams

# For each command: the module, the flags that the command stands for, and what it does.
PROGRAMS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "train": ("cxgrad_jax.main", ("--mode=train",), "train or resume a run, and test it"),
    "pretrain": ("cxgrad_jax.main", ("--mode=pretrain",), "train a classifier whose body a run may start from"),
    "evaluate": ("cxgrad_jax.main", ("--mode=evaluate",), "test a run again, or on other data"),
    "analyse": ("cxgrad_jax.main", ("--mode=analyse",), "write a report of what adaptation does in some runs"),
    "compare": ("cxgrad_jax.compare", (), "train several learners under one protocol, and write one table"),
    "tables": ("cxgrad_jax.tables", (), "make a table of the CxGrad paper"),
    "prepare": ("data_prep", (), "prepare a data set"),
    "photos": ("cxgrad_jax.photos_cli", (), "make a classifier of your photos, and use it"),
}
USAGE = "usage: cxgrad COMMAND [FLAG ...]"


def main() -> int:
    """Runs the program that the command line names; returns the exit status, or ends the process with it."""
    make_lasting()
    command, flags = (sys.argv[1] if sys.argv[1:] else ""), sys.argv[2:]
    if command in ("-h", "--help"):
        print(f"{USAGE}\n")
        for name, (_, _, what) in PROGRAMS.items():
            print(f"  {name:<10}{what}")
        print("\ncxgrad COMMAND --help lists the flags of a command.")
        return status_of_streams(0)
    if command not in PROGRAMS:
        known, close = ", ".join(PROGRAMS), difflib.get_close_matches(command, PROGRAMS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {known}"
        problem = f"{command} is not a command; {hint}" if command else f"give a command: one of {known}"
        print(f"cxgrad: {problem}", file=sys.stderr)
        return 2
    module, stands_for, _ = PROGRAMS[command]
    mode = next((flag for flag in flags if stands_for and flag.split("=")[0] == "--mode"), None)
    if mode:
        print(f"cxgrad: {mode} is not for cxgrad {command}; the command is the mode", file=sys.stderr)
        return 2
    if not sys.flags.safe_path:
        sys.path.insert(0, "")  # as python -m does, so that the user's own modules, such as a learner, are found
    sys.argv[1:] = [*stands_for, *flags]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # while it is still being imported
        print("cxgrad: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
