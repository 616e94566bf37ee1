# SPDX-License-Identifier: Apache-2.0
# Everything runs in a virtual environment that `make setup` makes; no ROS distribution is needed.

VENV := .venv
# Python 3.10 to 3.12; choose with `make setup PYTHON=python3.12`. Looked for when first needed.
PYTHON = $(shell for name in python3.11 python3.12 python3.10 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$name && break; done)

# The wheels' ROS 2 and a sourced ROS distribution must not meet in one process.
unexport PYTHONPATH PYTHONHOME _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef AMENT_PREFIX_PATH
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH RMW_IMPLEMENTATION
endif

# Shared memory large enough for six images at once, and no traffic beyond this machine.
export FASTDDS_DEFAULT_PROFILES_FILE := $(CURDIR)/config/fastdds.xml
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

.PHONY: help setup writable demo test lint bench bench-node clean
.DEFAULT_GOAL := help

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

setup: $(VENV)/.interfaces  ## Make the virtual environment (the others do it themselves).

demo: writable setup  ## Replay the demo bag through the real node and score it; writes out/demo.
	$(VENV)/bin/labeldistill demo

writable:
	@[ -w . ] || { echo "$(CURDIR) cannot be written, and make writes .venv and out/ there:" \
		"copy the checkout, or mend its permissions" >&2; exit 1; }

# Python may write what it compiled: otherwise each worker, in every run, compiles all tests anew.
test: setup  ## Run the tests.
	env -u PYTHONDONTWRITEBYTECODE $(VENV)/bin/pytest -n 4 --dist loadgroup

lint: setup  ## Check style (ruff), types (mypy) and the workflow files.
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: setup  ## Measure the detector by stage (six minutes).
	$(VENV)/bin/python -m benchmarks.detector stages

bench-node: setup  ## Put the running node through its failure table (two minutes).
	$(VENV)/bin/python -m benchmarks.node failures

clean:  ## Remove the virtual environment and everything generated.
	rm -rf $(VENV) build dist install log out/demo *.egg-info .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis

# A stamp is removed before its step and set after it. Without it, the step starts from nothing, so
# that a call which was cut off leaves no half-made environment behind.
ifeq ($(origin PYTHON),command line)
$(shell [ "$$($(VENV)/bin/python -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" ] || rm -f $(VENV)/.packages)
endif
ifeq ($(wildcard $(VENV)/.packages),)
$(shell rm -f $(VENV)/.interfaces)
endif

# What is missing is told before 7 GB are fetched.
$(VENV)/.packages: setup.py setup.cfg requirements/constraints.txt requirements/ros.txt | writable
	@command -v $(firstword $(CXX)) >/dev/null || { echo "No C++ compiler ($(CXX)) for the message" \
		"packages: install one (Debian, Ubuntu: apt install g++), or set CXX" >&2; exit 1; }
	@if [ ! -e $@ ]; then \
		[ -n "$(PYTHON)" ] || { echo "No Python 3.10, 3.11 or 3.12 found: install one, or" \
			"name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; \
		rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); fi
	@rm -f $@
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --retries 1 --timeout 10 \
		-c requirements/constraints.txt typing-extensions || { echo "The package index of pip" \
		"cannot be reached: check the network, a proxy (HTTPS_PROXY) or pip's index-url" >&2; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt \
		-r requirements/ros.txt -e '.[all]'
	@touch $@

$(VENV)/.interfaces: scripts/build_interfaces.py requirements/ros.txt \
		$(shell find interfaces -type f) | $(VENV)/.packages
	@rm -f $@
	$(VENV)/bin/python scripts/build_interfaces.py
	@touch $@
