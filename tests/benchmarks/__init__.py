"""Benchmarks: `python -m tests.benchmarks.<name>` prints one JSON object per line."""
