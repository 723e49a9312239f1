"""Settings of every test: the same draws on every run, and no deadline that a busy machine would miss."""

from hypothesis import settings

settings.register_profile("project", derandomize=True, deadline=None, database=None)
settings.load_profile("project")
