"""What is made of runs: the report of ``--mode=analyse``, comparisons, and the tables of the CxGrad paper."""
