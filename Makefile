# make demo        an architecture search on real images, from nothing to pictures
# make test        every test
# make coverage    which lines of the Python package the tests run: fails under 95 %
# make mutation    mistakes made in the operator's formulas: fails where no test notices and nobody has said why
# make test-cpp    the engine alone, without Python and torch, on every vector width that this processor has
# make test-gpu-emulated  the CUDA kernels on the CPU: the operator's table of tests, and both sanitizers
# make gpu-gates   every GPU kernel compiled for every chip: registers, spills and shared memory no worse than in docs/
# make cuda-standalone    build/cuda/standalone, which checks the CUDA kernels on a GPU; needs nvcc alone
# make check       lint, format, types
# make check-full  what takes longer: sanitizers, older processors, a soak test, a browser, a bare wheel, the oldest torch
# make docs        the documentation as a site in build/site, every warning an error
# make bench       speed and memory against stock PyTorch
# make test-gpu    the operator's tests on a GPU; without one it says so
# make bench-gpu   speed and memory against stock PyTorch on a GPU
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
CPP := $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*/*/*.h csrc/*/*/*.cpp csrc/*/*.cu csrc/*/*.cuh csrc/*/*/*.cuh)
DEMO := runs/demo

.PHONY: demo test test-cpp test-gpu test-gpu-emulated sanitize-gpu cuda-standalone check check-full format bench bench-gpu docs clean
.PHONY: coverage mutation gpu-gates gpu-gates-triton gpu-gates-cuda

$(VENV)/requirements: requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	touch $@

$(STAMP): $(VENV)/requirements setup.py pyproject.toml $(CPP)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/fastnas search --data digits --channels 8 --layers 4 --epochs 12 --alpha-lr 0.003 --out $(DEMO)/search
	$(BIN)/fastnas decode $(DEMO)/search
	$(BIN)/fastnas plot $(DEMO)/search
	$(BIN)/fastnas retrain $(DEMO)/search --channels 16 --layers 4 --epochs 8 --out $(DEMO)/network
	$(BIN)/fastnas plot $(DEMO)/network
	$(BIN)/fastnas report $(DEMO)/search $(DEMO)/network --out $(DEMO)/report.html

# Two files of tests side by side, whose threads give way to each other.
test: $(STAMP)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Without the tests of GPU kernels, which take longest and run little else of the package.
coverage: $(STAMP)
	rm -rf build/coverage
	$(BIN)/python -m coverage run -m pytest --ignore-glob 'tests/test_triton*' --ignore tests/test_cuda_emulated.py
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

mutation: $(STAMP)
	$(BIN)/python -m tools.mutation

test-cpp:
	$(MAKE) --no-print-directory -C csrc/tests test

test-gpu-emulated: $(STAMP) sanitize-gpu
	$(BIN)/python -m pytest tests/test_cuda_emulated.py

sanitize-gpu:
	$(MAKE) --no-print-directory -C csrc/cuda test

gpu-gates: gpu-gates-triton gpu-gates-cuda

CHECK := --check
gpu-gates-triton gpu-gates-cuda: gpu-gates-%: $(STAMP)
	$(BIN)/python -m tools.gpu_gates.$*_kernels $(CHECK)

cuda-standalone:
	$(MAKE) --no-print-directory -C csrc/cuda standalone

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)

check-full: check test coverage mutation test-cpp gpu-gates
	$(BIN)/python -m pytest --thorough -m thorough --timeout 3600
	.ci/sanitize
	.ci/old-cpu
	$(BIN)/python tests/soak.py
	$(BIN)/python tests/kill.py
	$(BIN)/python tests/fuzz_files.py
	.ci/browser
	$(BIN)/python -m pytest tests/test_accelerate_fuzz.py --fuzz 500 --timeout 7200
	.ci/loggers
	$(MAKE) docs
	.ci/wheel
	.ci/old-torch
	.ci/p100

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

test-gpu: $(STAMP)
	$(BIN)/python -m pytest tests/test_gpu.py

bench-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu_step.py

bench: $(STAMP)
	$(BIN)/python benchmarks/step.py

build/docs: requirements/docs.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

docs: build/docs
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) build runs fastnas/*.so *.egg-info
