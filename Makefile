# The commands of README.md and CONTRIBUTING.md by short names. Works in the active virtual environment.

.PHONY: help install test lint types faults kills fuzz quickstart pages site

help:
	@echo "make install | test | lint | types | faults | kills | fuzz | quickstart | pages | site"

install:
	pip install -e ".[dev]"

test:
	pytest

lint:
	ruff check .
	ruff format --check .
	lint-imports

types:
	mypy

faults:
	python tests/faults.py

kills:
	python tests/kills.py

fuzz:
	python tests/fuzz.py

quickstart:
	accelerate launch train_idm.py --config configs/quickstart.yaml

pages:
	python docs/make_configuration.py
	python docs/make_metrics.py
	python docs/make_architecture.py

site:
	mkdocs build --strict
