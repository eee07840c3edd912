"""The command that prepares data sets: ``python -m data_prep --help``."""
