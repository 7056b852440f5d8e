"""Training runs that are killed, cut off or damaged: `python -m tests.faults`."""
