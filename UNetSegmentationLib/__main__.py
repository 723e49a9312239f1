"""`python -m UNetSegmentationLib`: the command line."""

from .cli import enter

if __name__ == "__main__":
    enter()
