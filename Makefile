# Every target does its own set-up: the Python environment in .venv, and on Debian the system packages.
# Paths are relative throughout, so that the checkout may lie in a folder with spaces in its name.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help demo app test lint format screenshots soak venv system clean

PYTHON := .venv/bin/python
# The panel's module in the host that stands in for the Slicer application.
HOST = PYTHONPATH="$$PWD/Testing/Host" $(PYTHON) -m slicer_host --additional-module-paths UNetSegmentation --module UNetSegmentation

help:
	@echo "make demo         segment the bundled MRI case with the panel; result and picture in output/"
	@echo "make app          open the panel as a program in a window; FILES=image.nii.gz loads data"
	@echo "make test         run every check"
	@echo "make lint         run ruff and mypy only"
	@echo "make format       let ruff rewrite what it can"
	@echo "make screenshots  take the pictures of every state of the panel anew"
	@echo "make soak         200 runs of the panel with cancels, closed scenes and reloads between them"
	@echo "make venv         prepare the Python environment only"
	@echo "make clean        remove what the targets above wrote"

.venv/complete: Testing/requirements.txt Testing/prepare.sh pyproject.toml
	@echo "preparing the Python environment in .venv (some minutes, once)"
	@Testing/prepare.sh venv

venv: .venv/complete
	@:

system:
	@Testing/prepare.sh system

demo: venv system
	@$(HOST) --testing --python-script Testing/Demo/demo.py --output output

app: venv system
	@if [ "$$(uname)" = Linux ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
		echo "make app opens a window and there is no display (DISPLAY is not set): use make demo here" >&2; exit 2; fi
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
