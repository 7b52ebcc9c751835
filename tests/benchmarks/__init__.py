"""Benchmarks: `make bench` runs all of them, and `python -m tests.benchmarks NAME …` runs some."""
