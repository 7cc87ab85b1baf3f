#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

PYTHON = .venv/bin/python

.PHONY: help setup demo test test-slow bench bench-model bench-accuracy bench-boards clean

help:
	@echo "make demo       A whole model through the simulated SoC: its logits and text, compared with the exact model; then a 130M layer."
	@echo "make test       The tests, without those that take minutes each."
	@echo "make test-slow  Those."
	@echo "make bench      The simulated SoC against its bounds, as JSON and a page in build/bench/."
	@echo "make bench-model"
	@echo "                Whole models against the DRAM's bound, with a timeline of engines and DRAM, likewise."
	@echo "make bench-accuracy"
	@echo "                Errors, drift and area of the core's arithmetic, and what it does to a model's text and memory, likewise."
	@echo "make bench-boards"
	@echo "                What the SoC takes of the boards' FPGAs, by synthesis, likewise."
	@echo "make setup      Installs what the above need; they do it themselves."
	@echo "make clean      Removes what was built."

setup:
	@scripts/setup.sh

demo: setup
	$(PYTHON) examples/demo.py
	$(PYTHON) examples/layer.py --pass-tokens 1

test: setup
	$(PYTHON) -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: setup
	$(PYTHON) -m pytest -q -m slow

bench: setup
	$(PYTHON) bench/bounds.py
	$(PYTHON) bench/dram.py

bench-model: setup
	$(PYTHON) bench/whole_model.py

bench-accuracy: setup
	$(PYTHON) bench/area.py
	$(PYTHON) bench/exact.py
	$(PYTHON) bench/recall.py
	$(PYTHON) bench/accuracy.py
	$(PYTHON) bench/quality.py

bench-boards: setup
	$(PYTHON) bench/fit.py

clean:
	rm -rf build
