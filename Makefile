# `make` only starts things; what they do lives in tools/bootstrap.py.
PYTHON ?= python3

.PHONY: help setup demo hub quick test audit matrix colab bench docs release
help setup demo hub quick test audit matrix colab bench docs release:
	@$(PYTHON) tools/bootstrap.py $@
