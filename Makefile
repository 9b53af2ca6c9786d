# make collect   three demonstrations as a LeRobot dataset in datasets/demo
# make test      the test suite
# Both make their own virtual environment first and need only Python 3.10+ and make.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
DEMO := datasets/demo
# The real lerobot, in an environment of its own. Where the registry's torch is a CUDA build of
# several GB, take the CPU build: make check-lerobot TORCH_INDEX=https://download.pytorch.org/whl/cpu
LEROBOT_VENV ?= .venv-lerobot
TORCH_INDEX ?=

.PHONY: collect test test-long lint check-lerobot bench bench-success crash-test clean

collect: $(VENV)/.ready
	$(RUN) collect.py --num-episodes 3 --output $(DEMO) --resume

test: $(VENV)/.ready-dev
	$(RUN) -m pytest -q
	$(VENV)/bin/lint-imports

test-long: $(VENV)/.ready-dev
	$(RUN) -m pytest -q -m long

crash-test: $(VENV)/.ready-dev
	$(RUN) -m tests.crash --kills 200

lint: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

check-lerobot: $(VENV)/.ready $(LEROBOT_VENV)/.ready
	@rm -rf $(LEROBOT_VENV)/dataset
	$(RUN) collect.py --num-episodes 3 --keep all --output $(LEROBOT_VENV)/dataset
	$(LEROBOT_VENV)/bin/python tests/check_dataset.py $(LEROBOT_VENV)/dataset
	$(LEROBOT_VENV)/bin/python tests/check_policy.py

bench: $(VENV)/.ready
	$(RUN) -m benchmarks.speed

bench-success: $(VENV)/.ready
	$(RUN) -m benchmarks.expert_success

clean:
	rm -rf .venv .venv-lerobot build *.egg-info

$(VENV)/.ready: setup.cfg pyproject.toml deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(VENV) .
	@touch $@

$(VENV)/.ready-dev: setup.cfg pyproject.toml deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(VENV) ".[dev]"
	@touch $@ $(VENV)/.ready

$(LEROBOT_VENV)/.ready: tests/lerobot-requirements.txt setup.cfg deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(LEROBOT_VENV)
	@echo "pip will name conflicts with packages that are not needed here"
	$(LEROBOT_VENV)/bin/pip install --quiet torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(LEROBOT_VENV)/bin/pip install --quiet --no-deps torchvision==0.25.0 lerobot==0.4.4
	$(LEROBOT_VENV)/bin/pip install --quiet -r tests/lerobot-requirements.txt -e .
	@touch $@
