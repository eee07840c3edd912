"""``python -m cxgrad_jax.compare``: several learners under one protocol, in one table."""

from cxgrad_jax.command_line import start
from cxgrad_jax.report.comparison import run

if __name__ == "__main__":
    start(run)
