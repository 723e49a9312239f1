"""Benchmarks, beside other tools where these are installed."""
