"""Makes the notebooks from their text, ``NAME.py`` in jupytext's percent form, or checks that both agree.

    python notebooks/make.py                       executes every notebook and writes NAME.ipynb with its outputs
    python notebooks/make.py --check first_run     executes the notebook at a small size and compares it with its text

The repository's address stands in ``setup.cfg``; badges and install lines take it from there.
"""

import argparse
import configparser
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent
ADDRESS = re.compile(r"(github(?:\.com)?/)[\w.-]+/[\w.-]+?(?=/blob/|\"|\)|$)", re.MULTILINE)


def repository() -> str:
    """``OWNER/NAME`` of the project's address in ``setup.cfg``."""
    parser = configparser.ConfigParser()
    parser.read(FOLDER.parent / "setup.cfg", encoding="utf-8")
    address = next(line for line in parser["metadata"]["project_urls"].splitlines() if "github.com/" in line)
    return address.split("github.com/")[1].strip()


def read(name: str) -> nbformat.NotebookNode:
    """The notebook of ``NAME.py`` with the repository's address in its badge and its install line."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    notebook = jupytext.reads(ADDRESS.sub(rf"\g<1>{repository()}", text), "py:percent")
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{name}-{i}"  # jupytext's are random
    return notebook


def execute(notebook: nbformat.NotebookNode) -> None:
    """Runs all cells in an empty folder and keeps their outputs."""
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leaves out what differs between machines and runs: progress on stderr, and when a cell ran."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}


def sources(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Kind and text of every cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def check(name: str) -> str | None:
    """What is wrong with a notebook, or None."""
    notebook = read(name)
    written = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    if sources(written) != sources(notebook):
        return f"{name}.ipynb and {name}.py differ; run python notebooks/make.py {name}"
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    places = (str(place) for place in (Path.home(), tempfile.gettempdir(), FOLDER.parent, sys.prefix))
    if found := [place for place in places if f"{place}/" in text]:
        return f"{name}.ipynb holds the path {found[0]} of a machine"
    os.environ["CXGRAD_NOTEBOOK_SMALL"] = "1"
    try:
        execute(notebook)
    except CellExecutionError as error:
        return f"{name}: {error}"
    return None


def main(arguments: list[str]) -> int:
    """Makes or checks; the exit status."""
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.name != Path(__file__).name)
    parser = argparse.ArgumentParser(prog="python notebooks/make.py", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all if none is given")
    parser.add_argument("--check", action="store_true", help="execute at a small size and compare")
    given = parser.parse_args(arguments)
    for name in given.names or names:
        if name not in names:
            parser.error(f"{name} is no notebook; expected one of {', '.join(names)}")
        start = time.perf_counter()
        if given.check:
            if problem := check(name):
                print(problem, file=sys.stderr)
                return 1
        else:
            notebook = read(name)
            execute(notebook)
            clean(notebook)
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
