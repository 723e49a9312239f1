"""Messages between the panel and the worker: one file per operation, plus lines and arrays."""
