# `make` only starts things; what they do lives in tools/bootstrap.py.
PYTHON ?= python3

.PHONY: help setup demo hub quick test audit matrix colab bench docs release regen
help setup demo hub quick test audit matrix colab bench docs release regen:
	@$(PYTHON) tools/bootstrap.py $@
