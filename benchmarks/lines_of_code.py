"""How much code a learner is: lines of each module of ``cxgrad_jax.learners`` without docstrings, comments and blanks.

python -m benchmarks.lines_of_code
"""

import ast
from pathlib import Path

import cxgrad_jax.learners


def lines_of_code(source: str) -> int:
    """Lines that hold code."""
    tree = ast.parse(source)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and i not in docstrings for i, line in lines)


if __name__ == "__main__":
    for path in sorted(Path(cxgrad_jax.learners.__file__).parent.glob("*.py")):
        print(f"{path.stem:16}{lines_of_code(path.read_text()):4}")
