"""Messages between the panel and the worker: one file an operation, besides lines and arrays."""
