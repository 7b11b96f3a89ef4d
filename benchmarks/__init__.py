"""Benchmarks: ``make bench``.  Every figure is measured beside a floor in the same run, and reported as a ratio."""
