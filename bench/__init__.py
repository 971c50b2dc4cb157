"""Measurements: each prints one table and runs alone, as `python -m bench.NAME` or `make bench-NAME`."""
