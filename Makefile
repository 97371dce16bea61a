# Set-up is part of every target: a fresh machine needs nothing but Python >= 3.11 with venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# "auto" builds what the machine can build; "none" skips the extension (docs/extension.md)
export TORCH_BGDEBIAS_BUILD ?= auto

.PHONY: demo test test-slow lint site build extension sanitize packages cuda cuda-host bench gpu gpu-wheels mutants sanitize-all clean

$(BIN)/.ready: pyproject.toml setup.py $(wildcard csrc/*.h csrc/*.cpp csrc/*/*)
	@echo "setting up $(VENV) with everything that development needs (once, some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel ninja
	@$(BIN)/python -m pip install --quiet torch torchvision
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[dev]"
	@touch $@

demo: $(BIN)/.ready  ## the main job: measure background bias, remove it, write a report
	@$(BIN)/bgdebias demo --out demo-report --overwrite

test: $(BIN)/.ready  ## the whole suite but the tests marked slow
	@$(BIN)/python -m pytest -q --no-header -r fE -n 2 --maxprocesses 2

test-slow: $(BIN)/.ready  ## the long sweeps and experiments as well
	$(BIN)/python -m pytest --runslow

lint: $(BIN)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

site: $(BIN)/.ready  ## the documentation as a site in build/site; any warning fails
	$(BIN)/python site/assemble.py build/site-source
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

build: $(BIN)/.ready  ## sdist and wheel, and the wheel imported in an empty environment
	bash .ci/build.sh $(BIN)/python

extension: $(BIN)/.ready  ## (re)build the C++/CUDA extension in place
	$(BIN)/python setup.py build_ext --inplace

sanitize: $(BIN)/.ready  ## CPU kernel under AddressSanitizer and UBSan
	bash .ci/sanitize.sh $(BIN)/python

packages: $(BIN)/.ready  ## the callbacks' table with lightning 2.5 alone, and with pytorch_lightning 2.5 alone
	bash .ci/packages.sh $(BIN)/python

cuda: $(BIN)/.ready  ## compile the CUDA source where nvcc is
	bash .ci/cuda.sh $(BIN)/python

cuda-host: $(BIN)/.ready  ## the CUDA kernel compiled as C++, against the plain one
	bash .ci/cuda_host.sh $(BIN)/python

bench: $(BIN)/.ready  ## every floor of performance beside its goal (benchmarks/floors.toml)
	$(BIN)/python benchmarks/floors.py

gpu-wheels: $(BIN)/.ready  ## packages that a machine with torch alone lacks, to be carried there in build/wheels
	bash .ci/gpu_wheels.sh $(BIN)/python build/wheels

gpu:  ## on a machine with a card, torch and CUDA: build, tests, figures into benchmarks/results, in eight minutes
	bash .ci/gpu.sh

mutants: $(BIN)/.ready  ## 200 small mistakes drawn by a seed: which do the tests notice?
	$(BIN)/python .ci/mutants.py

sanitize-all: $(BIN)/.ready  ## CPU kernel on drawn bytes under TSan, ASan, UBSan, libFuzzer where there is a clang
	bash .ci/sanitize_all.sh $(BIN)/python

clean:
	rm -rf build dist *.egg-info torch_bgdebias/*.so
