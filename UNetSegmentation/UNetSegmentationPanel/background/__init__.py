"""Work beside the main thread: the worker process, and work in steps on the main thread."""
