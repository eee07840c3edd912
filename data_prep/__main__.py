"""Prepares a data set for training.

  python -m data_prep --list                                       what there is, and what it is made from
  python -m data_prep omniglot --download                          downloads; CIFAR-FS, CUB and Omniglot only
  python -m data_prep cifar_fs --archive cifar-100-python.tar.gz   from an archive at hand
  python -m data_prep tiered_imagenet --source train/              from a folder
  python -m data_prep image_folder --source DIR --as_name NAME     your own DIR/{train,val,test}/class/*.jpg

A test set alone may be DIR/test/class/*.jpg or DIR/class/*.jpg. Your own images are turned upright by their EXIF
orientation, and transparent parts become white.
An interrupted preparation leaves nothing that could be taken for a finished one: simply run it again.
"""

import _thread
import argparse
import os
import signal
import sys
import threading
from typing import NoReturn

from absl import logging

from cxgrad_jax import data
from cxgrad_jax.command_line import add_verbosity
from cxgrad_jax.data.datasets.catalogue import CATALOGUE
from cxgrad_jax.data.datasets.facts import size_text
from cxgrad_jax.errors import UserError
from cxgrad_jax.streams import make_lasting, status_of_streams


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m data_prep --help")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m data_prep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help=f"the data set: {', '.join(data.NAMES)}")
    parser.add_argument("--list", action="store_true", help="list data sets, archives, sizes, origins and splits")
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--archive", nargs="+", default=[], metavar="PATH", help="the publisher's archive or archives")
    origin.add_argument("--source", metavar="DIR", help="a folder of images instead of archives")
    origin.add_argument("--download", action="store_true", help="download the archives; checksums are verified")
    parser.add_argument("--as_name", metavar="NAME", help="image_folder: the name by which training finds your images")
    parser.add_argument(
        "--image_size", type=int, metavar="N", help="height and width in pixels; without it, the data set's usual size"
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", help="where prepared data lie; $CXGRAD_DATA_DIR, or else ~/.cache/cxgrad_jax"
    )
    add_verbosity(parser)
    arguments = parser.parse_args(argv)
    if not arguments.list and arguments.name is None:
        parser.error(f"name a data set: {', '.join(data.NAMES)}")
    return arguments


def print_list() -> None:
    for name, facts in CATALOGUE.items():
        print(f"{name}: {facts.title}")
        if facts.classes:
            print("  classes    {} train, {} val, {} test".format(*facts.classes))
        print(f"  images     {facts.images}")
        kind = "RGB" if facts.channels == 3 else "grey"
        print(f"  size       {facts.image_size} x {facts.image_size} {kind} unless --image_size; {facts.resize}")
        print(f"  origin     {facts.origin}")
        for archive in facts.archives:
            print(f"  --archive  {archive.name}, {size_text(archive.size)}")
        for files in facts.also:
            print(f"         or  {files}")
        if facts.folder:
            print(f"  --source   {facts.folder}")
        if facts.downloadable:
            print("  --download is possible")
        print()


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    logging.set_verbosity(logging.INFO)
    try:
        arguments = parse_arguments(argv)
        if arguments.list:
            print_list()
            return 0
        directory = data.prepare(
            arguments.name,
            data_dir=arguments.data_dir,
            archives=arguments.archive,
            source=arguments.source,
            image_size=arguments.image_size,
            as_name=arguments.as_name,
            download=arguments.download,
        )
    except UserError as error:
        print(f"cxgrad_jax: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, RuntimeError) as error:
        # Python 3.11 wraps what interrupts the making of a class, as when a module is imported.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        print("cxgrad_jax: interrupted; nothing was prepared; run the same command again", file=sys.stderr)
        return 130
    where = os.fsencode(directory).decode("utf-8", "backslashreplace")  # a terminal may refuse other bytes
    print(f"{arguments.as_name or arguments.name} is prepared in {where}")
    return 0


def interrupt(*_) -> None:
    """Ends the program at Ctrl-C. What half-made objects, such as a progress bar, raise at their end is not shown."""
    sys.unraisablehook = _interrupt_again
    raise KeyboardInterrupt


def _interrupt_again(unraisable) -> None:
    """Repeats an interruption that came in a callback, such as the garbage collector's, where Python drops it."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()  # here it would be dropped once more


if __name__ == "__main__":
    make_lasting()
    signal.signal(signal.SIGINT, interrupt)
    sys.exit(status_of_streams(main(sys.argv[1:])))
