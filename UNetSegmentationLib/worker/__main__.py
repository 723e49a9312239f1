"""`python -m UNetSegmentationLib.worker`: the worker process."""

from .process import main

if __name__ == "__main__":
    main()
