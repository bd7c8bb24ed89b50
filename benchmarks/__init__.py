"""Whole-process measurements of HTTP servers, side by side: `python -m benchmarks --help`."""
