"""``python -m cxgrad_jax.tables NUMBER``: a table of the CxGrad paper."""

from cxgrad_jax.command_line import start
from cxgrad_jax.report.paper_tables import run

if __name__ == "__main__":
    start(run)
