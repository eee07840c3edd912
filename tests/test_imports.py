"""Imports run one way: programs, report, training, library. The library needs few packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cxgrad_jax"
PROGRAMS = {"main", "compare", "tables", "photos_cli", "cli", "command_line", "__main__"}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LAYERS = ("library", "training", "report", "programs")


def layer(module: str) -> int:
    """The height of a module: 0 for the library, 3 for a program."""
    first = (module.split(".") + [""])[1]
    return {"training": 1, "report": 2, **dict.fromkeys(PROGRAMS, 3)}.get(first, 0)


def imports(module: str, everywhere: bool) -> set[str]:
    """The package's modules that a module imports, when it is itself imported or ``everywhere`` in it."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {
                name if name in MODULES else node.module
                for name in (f"{node.module}.{alias.name}" for alias in node.names)
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in MODULES} - {module}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "cxgrad_jax"])
def test_no_import_points_up(module):
    up = {name for name in imports(module, everywhere=True) if layer(name) > layer(module)}
    assert not up, f"{module} is of the {LAYERS[layer(module)]} and imports {up}"


def test_no_program_imports_another():
    programs = {name for name in MODULES if layer(name) == 3}
    shared = {"cxgrad_jax.cli", "cxgrad_jax.command_line"}  # the first is __main__ too
    assert not {(a, b) for a in programs for b in imports(a, True) & programs - shared}


def test_no_module_comes_back_to_itself():
    graph = {name: imports(name, everywhere=False) for name in MODULES}
    waiting = {name for name, needs in graph.items()}
    while free := {name for name in waiting if not graph[name] & waiting}:
        waiting -= free
    # The package itself and its parts stand above their modules, which do not import them.
    assert not waiting, f"these import one another: {sorted(waiting)}"


BLOCKED = ("ml_collections", "tensorflow_datasets", "orbax", "matplotlib", "sklearn", "tensorboardX", "torch")


def test_the_library_needs_none_of_the_trainers_packages():
    code = f"""
import sys
for name in {BLOCKED!r}: sys.modules[name] = None
import jax, numpy as np, optax, cxgrad_jax as cx
images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
store = cx.data.ImageStore(images, np.arange(0, 25, 8, dtype=np.int32), tuple("abc"))
sampler = cx.sampler(store, way=3, shot=1, query=2)
learner = cx.learners.proto_net(cx.models.Conv4(num_classes=3, features=2))
params = cx.fit(learner, sampler, optax.adam(1e-3), iterations=1, tasks=1, progress=False)
print(cx.evaluate(learner, params, sampler, episodes=4))
try: cx.load_run("nowhere")
except ImportError: print("load_run needs more")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "accuracy 0." in done.stdout and "load_run needs more" in done.stdout
