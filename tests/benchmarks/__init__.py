"""Figures as ratios from one interleaved run: `make bench`, or `python -m tests.benchmarks NAME …` for some."""
