# Every target does its own set-up: the Python environment in .venv, and on Debian the system packages.
# All paths are relative, so that the path of the checkout may contain spaces.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help demo app test lint format screenshots soak venv system clean

PYTHON := .venv/bin/python
# The panel's module in the host that stands in for the Slicer application.
HOST = PYTHONPATH="$$PWD/Testing/Host" $(PYTHON) -m slicer_host --additional-module-paths UNetSegmentation --module UNetSegmentation

help:
	@echo "make demo         segment the bundled MRI case with the panel; result and picture in output/"
	@echo "make app          open the panel in a window, without Slicer; FILES=image.nii.gz loads data"
	@echo "make test         run every check"
	@echo "make lint         run only ruff and mypy"
	@echo "make format       fix and format the code with ruff"
	@echo "make screenshots  retake the screenshots of every state of the panel"
	@echo "make soak         run the panel 200 times with cancels, closed scenes and reloads in between"
	@echo "make venv         prepare only the Python environment"
	@echo "make clean        remove everything that the targets above created"

.venv/complete: Testing/requirements.txt Testing/prepare.sh pyproject.toml
	@echo "preparing the Python environment in .venv (a few minutes, only once)"
	@Testing/prepare.sh venv

venv: .venv/complete
	@:

system:
	@Testing/prepare.sh system

demo: venv system
	@$(HOST) --testing --python-script Testing/Demo/demo.py --output output

app: venv system
	@if [ "$$(uname)" = Linux ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
		echo "make app needs a display (DISPLAY is not set): use make demo instead" >&2; exit 2; fi
	@$(HOST) $(FILES)

test: venv system
	@Testing/check.sh all

lint: venv
	@Testing/check.sh style

format: venv
	@$(PYTHON) -m ruff check --fix
	@$(PYTHON) -m ruff format

screenshots: venv system
	@$(HOST) --testing --python-script Testing/Demo/screenshots.py

soak: venv system
	@$(HOST) --testing --python-script Testing/Panel/soak.py

clean:
	rm -rf .venv build output .mypy_cache .ruff_cache .pytest_cache .hypothesis
