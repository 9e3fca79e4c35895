# make demo   install into .venv, then the whole loop on a recorded family: out/ has the picture
# make test   install into .venv with the test tools, run the tests against the installed wheel
#
# Both need Python 3.11 or newer and a C++ compiler; everything else comes from PyPI.
# PYTHON=... picks the interpreter, PYTEST_ARGS=... goes to pytest.

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.done
CEREBRAS := .venv-cerebras
TRAINERS := .venv-trainers
MEGATRON := .venv-megatron
LAUNCHERS := .venv-launchers
BENCH := .venv-bench
PIP := python -m pip --disable-pip-version-check
PYTEST_ARGS ?=

export PIP_ROOT_USER_ACTION := ignore
# The tests must see the installed package, not the source tree.
unexport PYTHONPATH

# Everything that ends up in the wheel. Folders are listed too: they change when a file goes.
INPUTS := pyproject.toml CMakeLists.txt LICENSE README.md \
  $(shell find csrc planner templates ! -name '*.py[co]' ! -name __pycache__)
CXX_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.hpp')

.PHONY: help demo test lint format bench bench-startup bench-archive bench-render evaluate \
  test-cerebras test-trainers test-megatron test-launchers test-slurm test-sanitizers test-emulated fuzz clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "make lint | format | bench | bench-startup | bench-archive | bench-render | evaluate"
	@echo "make test-cerebras | test-trainers | test-megatron | test-launchers | test-slurm"
	@echo "make test-sanitizers | test-emulated | fuzz | clean"

demo: $(DONE)/wheel $(DONE)/plots
	@PATH="$(abspath $(BIN)):$$PATH" examples/demo.sh out

test: $(DONE)/wheel $(DONE)/test $(DONE)/train
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(DONE)/wheel $(DONE)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict planner
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(DONE)/dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench-startup: $(DONE)/wheel
	$(BIN)/python benchmarks/startup.py

# Ten thousand synthetic runs; BENCH_ARGS="--runs 1000" for fewer, "--scale 100000" for more.
bench-archive: $(DONE)/wheel
	$(BIN)/python benchmarks/archive.py $(BENCH_ARGS)

# A thousand runs for every target.
bench-render: $(DONE)/wheel
	$(BIN)/python benchmarks/render.py $(BENCH_ARGS)

# How well the analytics do on real runs; EVALUATE_ARGS="ladder" for a part, printed.
EVALUATE_ARGS ?= -o docs/accuracy.md --json build/accuracy.json
evaluate: $(DONE)/wheel $(DONE)/test
	@mkdir -p build
	$(BIN)/python benchmarks/accuracy $(EVALUATE_ARGS)

# The kernel against its peers, all in one process; BENCH_ARGS="w1 --quick" for a part of it.
BENCH_ARGS ?=
bench: $(BENCH)/.done/wheel $(BENCH)/.done/peers
	$(BENCH)/bin/python benchmarks/kernel --json build/bench.json $(BENCH_ARGS)

# The real cerebras_pytorch beside the package: about 6 GB, Python 3.11 on x86-64 Linux only.
test-cerebras: $(CEREBRAS)/.done/wheel
	$(CEREBRAS)/bin/$(PIP) check
	PLANNER_REQUIRE_CEREBRAS=1 $(CEREBRAS)/bin/pytest -m cerebras $(PYTEST_ARGS)

# The real trainers that are rendered for, beside the package: about 3 GB. torchtitan imports triton,
# which PyTorch for CPUs does not bring.
test-trainers: $(TRAINERS)/.done/wheel
	PLANNER_REQUIRE_TRAINERS=1 $(TRAINERS)/bin/pytest -m trainers $(PYTEST_ARGS)

# The real megatron-core, in an environment of its own that uses the trainers' packages: 0.7 GB more.
test-megatron: $(MEGATRON)/.done/venv $(TRAINERS)/.done/wheel
	PLANNER_REQUIRE_MEGATRON=1 $(MEGATRON)/bin/python -P -m pytest -m megatron $(PYTEST_ARGS)

# What the launchers render, read by the programs that it is for: about 0.7 GB.
test-launchers: $(LAUNCHERS)/.done/wheel
	$(LAUNCHERS)/bin/$(PIP) check
	PATH="$(abspath $(LAUNCHERS))/bin:$$PATH" PLANNER_REQUIRE_LAUNCHERS=1 \
	  $(LAUNCHERS)/bin/pytest -m launchers $(PYTEST_ARGS)

# A Slurm cluster on this machine's loopback, as root; Debian's packages are installed if missing.
test-slurm: $(DONE)/wheel $(DONE)/test $(DONE)/train
	.ci/slurm
	PLANNER_REQUIRE_SLURM=1 $(BIN)/pytest -m slurm $(PYTEST_ARGS)

# The C++ tests need no Python. One build per sanitizer, each kept in build/; the one that checks
# memory is also the fuzzer's. -O1, because -O2 with sanitizers compiles four times as long.
SANITIZE_memory := address,undefined
SANITIZE_thread := thread
# libFuzzer where clang++ is, else our own driver.
CXX_memory := $(or $(shell command -v clang++),$(CXX))
CXX_thread := $(CXX)
build-sanitizer-%: $(DONE)/build
	@CXX=$(CXX_$*) $(BIN)/cmake -S . -B build/$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1 -DNDEBUG" \
	  -DPLANNER_PYTHON=OFF -DPLANNER_TESTS=ON -DPLANNER_WERROR=ON \
	  -DPLANNER_SANITIZE=$(SANITIZE_$*) >build/$*.log \
	  || { cat build/$*.log; exit 1; }
	@$(BIN)/cmake --build build/$*

test-sanitizers: test-sanitizer-memory test-sanitizer-thread
test-sanitizer-%: build-sanitizer-%
	build/$*/csrc/tests/kernel_tests

# The C++ tests on CPUs without AVX-512 and without AVX, where qemu-x86_64 emulates them.
test-emulated: $(DONE)/build
	@CXX=$(CXX) $(BIN)/cmake -S . -B build/emulated -G Ninja \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release -DPLANNER_PYTHON=OFF \
	  -DPLANNER_TESTS=ON -DPLANNER_WERROR=ON >build/emulated.log || { cat build/emulated.log; exit 1; }
	@$(BIN)/cmake --build build/emulated --target kernel_tests
	.ci/emulated build/emulated/csrc/tests/kernel_tests

# Random ragged input under the address and undefined-behaviour sanitizers.
FUZZ_SECONDS ?= 60
fuzz: build-sanitizer-memory
	.ci/fuzz build/memory/csrc/tests/kernel_fuzz $(FUZZ_SECONDS)

clean:
	rm -rf $(VENV) $(CEREBRAS) $(TRAINERS) $(MEGATRON) $(LAUNCHERS) $(BENCH) build out \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis

# --- how the environments are made; each file says that a step is done -------------------------

$(DONE)/build: .ci/make-venv .ci/requirements-build.txt
	.ci/make-venv $(VENV)
	$(BIN)/$(PIP) install -q -r .ci/requirements-build.txt
	@mkdir -p $(DONE) && touch $@

# The wheel is built in build/cmake, so that only what changed is compiled again.
$(DONE)/wheel: $(DONE)/build $(INPUTS)
	@rm -rf build/wheel
	$(BIN)/$(PIP) wheel -q . --no-deps --no-build-isolation -w build/wheel \
	  --config-settings=build-dir=build/cmake --config-settings=cmake.define.PLANNER_WERROR=ON
	$(BIN)/$(PIP) install -q --no-deps --force-reinstall build/wheel/*.whl
	$(BIN)/$(PIP) install -q build/wheel/*.whl
	@touch $@

$(DONE)/test $(DONE)/dev $(DONE)/plots: $(DONE)/%: pyproject.toml | $(DONE)/wheel
	$(BIN)/$(PIP) install -q "$$(echo build/wheel/*.whl)[$*]"
	@touch $@

# PyTorch on its own, so that `make lint` does not need it.
$(DONE)/train: pyproject.toml .ci/constraints-train.txt | $(DONE)/wheel
	$(BIN)/$(PIP) install -q "$$(echo build/wheel/*.whl)[train]" -c .ci/constraints-train.txt
	@touch $@

$(CEREBRAS)/.done/venv: .ci/make-venv pyproject.toml .ci/constraints-cerebras.txt
	.ci/make-venv $(CEREBRAS) 3.11
	$(CEREBRAS)/bin/$(PIP) install -q "pip>=24"
	@mkdir -p $(@D) && touch $@

$(CEREBRAS)/.done/wheel: $(CEREBRAS)/.done/venv $(INPUTS)
	@rm -rf build/wheel-cerebras
	$(CEREBRAS)/bin/$(PIP) wheel -q . --no-deps -w build/wheel-cerebras
	$(CEREBRAS)/bin/$(PIP) install -q --no-deps --force-reinstall build/wheel-cerebras/*.whl
	$(CEREBRAS)/bin/$(PIP) install -q "$$(echo build/wheel-cerebras/*.whl)[test]" \
	  cerebras-pytorch==2.10.0 -c .ci/constraints-cerebras.txt
	@touch $@

$(TRAINERS)/.done/venv: .ci/make-venv .ci/constraints-train.txt .ci/constraints-trainers.txt
	.ci/make-venv $(TRAINERS)
	@mkdir -p $(@D) && touch $@

$(TRAINERS)/.done/wheel: $(TRAINERS)/.done/venv $(DONE)/wheel
	$(TRAINERS)/bin/$(PIP) install -q --force-reinstall --no-deps build/wheel/*.whl
	$(TRAINERS)/bin/$(PIP) install -q "$$(echo build/wheel/*.whl)[test,train]" \
	  "transformers[torch]" ai2-olmo-core torchtitan triton \
	  -c .ci/constraints-train.txt -c .ci/constraints-trainers.txt
	@touch $@

$(MEGATRON)/.done/venv: .ci/megatron .ci/constraints-megatron.txt $(TRAINERS)/.done/venv \
  | $(TRAINERS)/.done/wheel
	.ci/megatron $(MEGATRON) $(TRAINERS)
	@mkdir -p $(@D) && touch $@

$(LAUNCHERS)/.done/venv: .ci/make-venv .ci/requirements-launchers.txt
	.ci/make-venv $(LAUNCHERS)
	$(LAUNCHERS)/bin/$(PIP) install -q -r .ci/requirements-launchers.txt
	@mkdir -p $(@D) && touch $@

$(LAUNCHERS)/.done/wheel: $(LAUNCHERS)/.done/venv $(DONE)/wheel
	$(LAUNCHERS)/bin/$(PIP) install -q --force-reinstall --no-deps build/wheel/*.whl
	$(LAUNCHERS)/bin/$(PIP) install -q "$$(echo build/wheel/*.whl)[test]"
	@touch $@

$(BENCH)/.done/venv: .ci/make-venv
	.ci/make-venv $(BENCH)
	@mkdir -p $(@D) && touch $@

$(BENCH)/.done/wheel: $(BENCH)/.done/venv $(DONE)/wheel
	$(BENCH)/bin/$(PIP) install -q --force-reinstall --no-deps build/wheel/*.whl
	$(BENCH)/bin/$(PIP) install -q build/wheel/*.whl
	@touch $@

# One by one: a peer that does not install is left out, and the benchmark says so.
$(BENCH)/.done/peers: benchmarks/kernel/requirements.txt | $(BENCH)/.done/venv
	for peer in $$(cat $<); do \
	  $(BENCH)/bin/$(PIP) install -q "$$peer" || echo "skipped: $$peer does not install" >&2; \
	done
	@touch $@
