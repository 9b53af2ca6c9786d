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

# lerobot 0.6, which needs Python 3.12 (5.5 GB with a CUDA build of torch; TORCH_INDEX as above).
LEROBOT_TRAIN_VENV ?= .venv-lerobot-train
PYTHON312 ?= $(firstword $(wildcard /usr/bin/python3.1[23] /usr/local/bin/python3.1[23] \
	$(HOME)/.pyenv/versions/3.1[23].*/bin/python) $(PYTHON))

# Other people's tools, with the newest lerobot and its Python (as large); TORCH_INDEX as above.
CLIENTS_VENV ?= .venv-clients

# Newton, which pins a MuJoCo of its own, to read the Isaac Sim scene (1.2 GB).
NEWTON_VENV ?= .venv-newton
# What Isaac Sim 4.5 has: Python 3.10, numpy 1.26.0, gymnasium 0.29.1 and no MuJoCo.
ISAAC_VENV ?= .venv-isaac
# MuJoCo Warp, and PyTorch for the tests of its tensors (TORCH_INDEX as above).
GPU_VENV ?= .venv-gpu
PYTHON310 ?= $(firstword $(wildcard /usr/bin/python3.10 /usr/local/bin/python3.10 \
	$(HOME)/.pyenv/versions/3.10.*/bin/python) $(PYTHON))

# The site of the documentation; its themes and parsers disagree with nothing, but are many.
DOCS_VENV ?= .venv-docs

.PHONY: collect test test-long test-ray lint docs check-lerobot check-tutorial check-clients train-lerobot usd-check test-isaac-env test-gpu bench bench-baselines bench-peers bench-success bench-reactive bench-vector bench-bridge bench-scaling bench-policies attack crash-test clean

collect: $(VENV)/.ready
	$(RUN) collect.py --num-episodes 3 --output $(DEMO) --resume

test: $(VENV)/.ready-dev
	@echo "the test suite takes about 7 minutes on 2 cores; the last lines say why tests were skipped"
	$(RUN) -m pytest -q -rs -n 2 --dist loadfile
	$(VENV)/bin/lint-imports

test-long: $(VENV)/.ready-dev
	$(RUN) -m pytest -q -m long

# A cluster of three nodes on this machine, of which one is lost.
test-ray: $(VENV)/.ready-dev
	$(RUN) -m pip install --quiet -e ".[ray]"
	$(RUN) -m pytest -q -m "long or not long" tests/pp_recorder/parallel/test_ray_cluster.py

# A bridge on loopback meets strangers: half-open connections, hostile datasets, fuzzed requests.
attack: $(VENV)/.ready-dev
	$(RUN) -m tests.attack

crash-test: $(VENV)/.ready-dev
	$(RUN) -m tests.crash --kills 200

lint: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)
	$(VENV)/bin/lint-imports

# Warnings are errors: a link that leads nowhere, a docstring that does not match its function.
docs: $(DOCS_VENV)/.ready
	$(DOCS_VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo "build/docs/index.html"

# From 300 pixels on, lerobot computes statistics from smaller images.
check-lerobot: $(VENV)/.ready $(LEROBOT_VENV)/.ready
	@rm -rf $(LEROBOT_VENV)/dataset
	$(RUN) collect.py --num-episodes 3 --keep all --resolution 320 --preset fast --output $(LEROBOT_VENV)/dataset
	$(LEROBOT_VENV)/bin/python tests/check_dataset.py $(LEROBOT_VENV)/dataset
	$(LEROBOT_VENV)/bin/python -m tests.check_policy
	$(LEROBOT_VENV)/bin/python -m tests.check_training

# Trains and evaluates with LeRobot's own commands; leaves dataset, checkpoint and videos there.
# Then checks the policies and the loader that examples/ adds to them.
train-lerobot: $(LEROBOT_TRAIN_VENV)/.ready
	@rm -rf $(LEROBOT_TRAIN_VENV)/run
	PATH="$(abspath $(LEROBOT_TRAIN_VENV)/bin):$$PATH" sh examples/train_lerobot.sh $(LEROBOT_TRAIN_VENV)/run
	$(LEROBOT_TRAIN_VENV)/bin/python -m tests.check_training

# Every line of docs/tutorial.md as it stands, in small, in a copy of the project in build/tutorial,
# and what other pages run in the environment that its first lines make there (5.5 GB).
check-tutorial:
	PATH="$(dir $(PYTHON312)):$$PATH" $(PYTHON312) -m tests.pages

# Takes a quarter of an hour. Streaming needs FFmpeg's libraries (apt-get install ffmpeg).
check-clients: $(CLIENTS_VENV)/.ready $(LEROBOT_VENV)/.ready
	$(CLIENTS_VENV)/bin/python -m tests.check_clients --lerobot $(LEROBOT_VENV)/bin/python; \
		status=$$?; $(CLIENTS_VENV)/bin/python -m benchmarks.report && exit $$status

# Each benchmark prints its tables and rewrites them and the plot in docs/.
bench: $(VENV)/.ready-dev
	$(RUN) -m benchmarks.speed
	$(RUN) -m benchmarks.breakdown
	$(RUN) -m benchmarks.report

# Every baseline in an environment of its own in .venv-baselines; lerobot's is that of check-lerobot.
bench-baselines: $(VENV)/.ready-dev
	$(RUN) -m benchmarks.baselines
	-$(MAKE) $(LEROBOT_VENV)/.ready && $(RUN) -m benchmarks.recorder --lerobot $(LEROBOT_VENV)/bin/python
	$(RUN) -m benchmarks.report

bench-peers: bench-baselines  # its name in 0.1.0

bench-success: $(VENV)/.ready-dev
	$(RUN) -m benchmarks.expert_success --all
	$(RUN) -m benchmarks.report

bench-reactive: $(VENV)/.ready-dev
	$(RUN) -m benchmarks.reactive_success

bench-vector: $(VENV)/.ready-dev
	$(RUN) -m benchmarks.vector
	$(RUN) -m benchmarks.report

# As many workers as there are processors, and fewer; on a GPU where there is one.
bench-scaling: $(VENV)/.ready-dev
	$(RUN) -m benchmarks.scaling
	$(RUN) -m benchmarks.report

# Needs a GPU; see docs/training.md.
bench-policies: $(LEROBOT_TRAIN_VENV)/.ready
	$(LEROBOT_TRAIN_VENV)/bin/python -m benchmarks.policies

bench-bridge: $(VENV)/.ready-dev
	$(RUN) -m benchmarks.bridge latency
	$(RUN) -m benchmarks.bridge load

clean:
	rm -rf .venv .venv-lerobot .venv-lerobot-train .venv-clients .venv-newton .venv-isaac .venv-docs .venv-gpu .venv-baselines .venv-peers build *.egg-info

$(VENV)/.ready: setup.cfg pyproject.toml deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(VENV) .
	@touch $@

$(VENV)/.ready-dev: setup.cfg pyproject.toml deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(VENV) ".[dev,bridge]"
	@touch $@ $(VENV)/.ready

$(DOCS_VENV)/.ready: setup.cfg pyproject.toml deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(DOCS_VENV) ".[docs]"
	@touch $@

$(LEROBOT_VENV)/.ready: tests/lerobot-requirements.txt setup.cfg deploy/bootstrap.py \
		examples/lerobot_policy/pyproject.toml
	$(PYTHON) deploy/bootstrap.py $(LEROBOT_VENV)
	@echo "pip will name conflicts with packages that are not needed here"
	$(LEROBOT_VENV)/bin/pip install --quiet torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(LEROBOT_VENV)/bin/pip install --quiet --no-deps torchvision==0.25.0 lerobot==0.4.4
	$(LEROBOT_VENV)/bin/pip install --quiet -r tests/lerobot-requirements.txt -e .
	$(LEROBOT_VENV)/bin/pip install --quiet --no-deps -e examples/lerobot_policy
	@touch $@

$(LEROBOT_TRAIN_VENV)/.ready: setup.cfg deploy/bootstrap.py \
		examples/lerobot_env/pyproject.toml examples/lerobot_policy/pyproject.toml
	@$(PYTHON312) -c "import sys; v = sys.version_info[:2]; v in ((3, 12), (3, 13)) or sys.exit( \
		'error: lerobot 0.6 needs Python 3.12 or 3.13, but $(PYTHON312) is %d.%d; ' % v + \
		'name another: make train-lerobot PYTHON312=/path/to/python3.12')"
	$(PYTHON312) deploy/bootstrap.py $(LEROBOT_TRAIN_VENV) .
	$(LEROBOT_TRAIN_VENV)/bin/pip install --quiet torch==2.11.0 torchvision==0.26.0 \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(LEROBOT_TRAIN_VENV)/bin/pip install --quiet pytest "lerobot[training,diffusion]==0.6.1" \
		-e examples/lerobot_env -e examples/lerobot_policy
	@touch $@

# A name of its own, because make would take the commas for those of $(if).
CLIENTS_TORCH := "torch>=2.11,<2.12" "torchvision>=0.26,<0.27"

$(CLIENTS_VENV)/.ready: tests/clients-requirements.txt setup.cfg deploy/bootstrap.py \
		examples/lerobot_env/pyproject.toml examples/lerobot_policy/pyproject.toml
	@$(PYTHON312) -c "import sys; v = sys.version_info[:2]; v in ((3, 12), (3, 13)) or sys.exit( \
		'error: the newest lerobot needs Python 3.12 or 3.13, but $(PYTHON312) is %d.%d; ' % v + \
		'name another: make check-clients PYTHON312=/path/to/python3.12')"
	$(PYTHON312) deploy/bootstrap.py $(CLIENTS_VENV) .
	$(if $(TORCH_INDEX),$(CLIENTS_VENV)/bin/pip install --quiet $(CLIENTS_TORCH) \
		--index-url $(TORCH_INDEX))
	$(CLIENTS_VENV)/bin/pip install --quiet -r tests/clients-requirements.txt matplotlib \
		-e examples/lerobot_env -e examples/lerobot_policy
	@touch $@

usd-check: $(NEWTON_VENV)/.ready
	$(NEWTON_VENV)/bin/python -m tests.usd_check $(NEWTON_VENV)/scene

# Left out: the order in which files change, which depends on neither Python nor numpy.
test-isaac-env: $(ISAAC_VENV)/.ready
	@$(ISAAC_VENV)/bin/python --version
	$(ISAAC_VENV)/bin/python -m pytest -q -n 2 --dist loadfile \
		--ignore tests/pp_recorder/dataset/test_every_moment.py

# Simulator "warp": on the GPU, or on the processor where there is none (WARP_GPU=cpu chooses it).
# About 3 minutes on one processor, and 3 more the first time, to compile the kernels.
test-gpu: $(GPU_VENV)/.ready
	$(GPU_VENV)/bin/python -m pytest -q -rs -m "long or not long" \
		tests/pp_env/sim/warp tests/pp_collect/test_batched.py

$(NEWTON_VENV)/.ready: tests/usd_check.py deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(NEWTON_VENV)
	$(NEWTON_VENV)/bin/pip install --quiet "newton[sim]==1.8.0" "usd-core>=26.3,<26.9" \
		newton-usd-schemas scipy pillow "gymnasium-robotics>=1.4,<2" "fast-simplification>=0.1.9,<0.3"
	@touch $@

$(GPU_VENV)/.ready: setup.cfg deploy/bootstrap.py
	$(PYTHON) deploy/bootstrap.py $(GPU_VENV) ".[gpu,dev]"
	$(GPU_VENV)/bin/pip install --quiet torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@touch $@

$(ISAAC_VENV)/.ready: Makefile deploy/isaac-sim-requirements.txt deploy/isaac-sim-4.5-constraints.txt
	$(PYTHON310) deploy/bootstrap.py $(ISAAC_VENV)
	$(ISAAC_VENV)/bin/pip install --quiet -r deploy/isaac-sim-requirements.txt \
		-c deploy/isaac-sim-4.5-constraints.txt fast-simplification pandas pytest "pytest-xdist>=3.6,<4" \
		"usd-core>=26.3,<27"
	$(ISAAC_VENV)/bin/pip install --quiet --no-deps "gymnasium-robotics>=1.4,<2"
	@touch $@
