"""Reports on runs: the page of ``--mode=analyse``, comparisons, and the tables of the CxGrad paper."""
