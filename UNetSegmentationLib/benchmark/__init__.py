"""Benchmarks, against other tools if they are installed."""
