"""Background work: the worker process, and incremental work on the main thread."""
