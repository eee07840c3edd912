"""Builds the documentation: ``sphinx-build -W --keep-going docs docs/_build/html``.

A public name without a docstring, or one that no page of the reference has, fails the build.
"""

import importlib
import inspect
import re
import shutil
import sys
import tokenize
from pathlib import Path

from sphinx.errors import ExtensionError

import cxgrad_jax
from cxgrad_jax.training import config

ROOT = Path(__file__).parents[1]
PUBLIC = (
    "",
    ".analysis",
    ".data",
    ".interop",
    ".learners",
    ".models",
    ".photos",
    ".pretraining",
    ".runtime",
    ".training.config",
)  # below cxgrad_jax

project, author = "cxgrad_jax", "The cxgrad_jax authors"
release = version = cxgrad_jax.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks hold the outputs of a real run
autosummary_generate = False
autodoc_typehints = "none"  # the signature has them, and the text the shapes
autodoc_preserve_defaults = True
html_theme = "sphinx_book_theme"
html_title = "cxgrad_jax"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "navbar_persistent": []}
exclude_patterns = ["_build"]


def public_names() -> dict[str, object]:
    """Every public name and its object; a name that two modules have stands under the one nearer to the top."""
    found: dict[str, object] = {}
    for below in PUBLIC:
        module = importlib.import_module(f"cxgrad_jax{below}")
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
        ]
        for name in names:
            value = getattr(module, name)
            if callable(value) and not any(value is known for known in found.values()):
                found[f"{module.__name__}.{name}"] = value
    return found


def is_factory(value: object) -> bool:
    """Whether ``value`` makes a learner of a paper: ``_l2f.l2f(model, …)`` does."""
    module = f"cxgrad_jax.learners._{getattr(value, '__name__', '')}"
    return inspect.isfunction(value) and value.__module__ == module and "model" in inspect.signature(value).parameters


def copy_notebooks() -> None:
    """Sphinx reads below its own folder only."""
    folder = ROOT / "docs" / "tutorials"
    folder.mkdir(exist_ok=True)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(notebook, folder / notebook.name)


def write_reference() -> None:
    """A page for each public module: a table of its names, then their docstrings."""
    names = public_names()
    for below in PUBLIC:
        module = f"cxgrad_jax{below}"
        own = {name: value for name, value in names.items() if name.rpartition(".")[0] == module}
        text = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n   :no-members:\n\n"
        text += f".. currentmodule:: {module}\n"
        factories = [name for name, value in own.items() if is_factory(value)]
        others = [name for name in own if name not in factories]
        for title, part in (("Learners", factories), ("Parts" if factories else "", others)):
            if part:
                text += f"\n{title}\n{'-' * len(title)}\n" if title else ""
                text += "\n.. autosummary::\n   :nosignatures:\n\n"
                text += "".join(f"   {name.rpartition('.')[2]}\n" for name in part)
        own = {name: own[name] for name in (*factories, *others)}
        text += "\nIn full\n-------\n" if factories else ""
        for name, value in own.items():
            text += f"\n.. auto{'class' if inspect.isclass(value) else 'function'}:: {name}\n"
        (ROOT / "docs" / "reference" / f"{module}.rst").write_text(text, encoding="utf-8")


def write_fields() -> None:
    """The table of the configuration's fields, from the defaults and the comments of ``training/config.py``."""
    with (ROOT / "cxgrad_jax" / "training" / "config.py").open("rb") as file:
        comments: dict[int, str] = {
            token.start[0]: token.string.removeprefix("# ")
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        }
    lines = (ROOT / "cxgrad_jax" / "training" / "config.py").read_text(encoding="utf-8").splitlines()
    text = ["| field | default | meaning |", "|---|---|---|"]
    for function, prefix in (
        (config.base_config, ""), (config.pretraining_stage, "pretrain."), (config.analysis_config, "analysis."),
    ):  # fmt: skip
        source, first = inspect.getsourcelines(function)
        values = config.fields(function(), prefix)
        for number in range(first, first + len(source)):
            assigned = re.match(r"    config\.([\w.]+) = (?!ConfigDict\(\)|\w+_config)", lines[number - 1])
            if assigned:
                field = f"{prefix}{assigned[1]}"
                meaning = comments[number].replace("|", "\\|")  # a KeyError: every field has its meaning beside it
                text.append(f"| `{field}` | `{values[field]!r}` | {meaning} |")
    (ROOT / "docs" / "reference" / "fields.inc").write_text("\n".join(text) + "\n", encoding="utf-8")


def add_equations(app, what, name, value, options, lines: list[str]) -> None:
    """The text of a learner's module, which has its equations and its sources, goes behind the first paragraph."""
    if not is_factory(value):
        return
    paragraphs = (sys.modules[value.__module__].__doc__ or "").strip("\n").split("\n\n")[1:]
    text: list[str] = []
    for paragraph in paragraphs:
        indented = paragraph.startswith("    ")
        if indented and not (text and text[-1].startswith("    ")):
            text += ["::", ""]
        text += [*paragraph.split("\n"), ""]
    first = lines.index("") if "" in lines else len(lines)
    lines[first + 1 : first + 1] = text


def check_public_names(app, env) -> None:
    """Fails where a public name is not documented."""
    documented = set(env.get_domain("py").objects)
    missing = [name for name in public_names() if name not in documented]
    bare = [name for name, value in public_names().items() if not inspect.getdoc(value)]
    if missing or bare:
        raise ExtensionError(f"no page documents {missing}; no docstring has {bare}")
    print(f"{len(public_names())} public names, all documented")


copy_notebooks()
write_reference()
write_fields()


def setup(app) -> None:
    app.connect("autodoc-process-docstring", add_equations)
    app.connect("env-check-consistency", check_public_names)
