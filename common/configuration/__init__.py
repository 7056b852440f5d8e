"""From `config.py` and the command line to checked, typed jobs."""
