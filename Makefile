# make play: a dream in your browser.  make test: the tests.  Both make the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NAME ?= forcing.rooms
PORT ?= 8000

# With an NVIDIA card the default build of PyTorch is right; without one the CPU build, which is a fifth of its size.
CPU_TORCH := torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu --retries 1
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo "'torch>=2.11,<2.15'" || echo '$(CPU_TORCH)')

.PHONY: play test test-kernels check lint format weights clean

play: $(VENV)/.installed
	$(BIN)/dreamwalk play $(NAME) --port $(PORT)

# Two processes of one thread each: threads of two processes that wait for each other on two cores slow both tenfold.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: $(VENV)/.developed
	$(PYTEST)

# The numerical tests again, each time with kernels that stand for another processor.
KERNELS := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=AVX2
NUMERICAL := tests/layers tests/schedules tests/backbones tests/codecs tests/weights tests/published tests/conditions/test_byte_encoder.py \
  tests/systems/test_autoencode.py tests/rollout/test_execute.py

test-kernels: $(VENV)/.developed
	for kernels in $(KERNELS); do echo $$kernels && env $$kernels $(PYTEST) $(NUMERICAL) || exit 1; done

check: lint test

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# The recipe of the shipped weights, in order. On two CPU cores ten hours; with an NVIDIA card the same
# model is trained far longer in that time. CPUs without bfloat16 arithmetic need twice the time.
ifeq ($(shell command -v nvidia-smi >/dev/null 2>&1 && echo card),card)
FRAMES := 200000
ROOMS := --batch 64 --steps 20000 --resident
MAP := --steps 6000
DREAM := --batch 128 --frames 16 --system.window 15 --steps 12000 --compile-blocks
FORCING := --batch 128 --frames 16 --system.window 15 --steps 4000 --compile-blocks
CLIPS := --batch 128 --steps 10000 --compile-blocks
TOKENS := --batch 128 --resident
else
FRAMES := 80000
ROOMS := --precision bfloat16
MAP := --precision bfloat16
DREAM := --precision bfloat16
FORCING := --precision bfloat16
CLIPS := --precision bfloat16
TOKENS := --precision bfloat16 --compile-blocks
endif

weights: $(VENV)/.developed
	$(BIN)/dreamwalk collect doom --level home --split train --frames $(FRAMES) --out data/home-train --workers 2
	$(BIN)/dreamwalk collect doom --level home --split test --frames 6400 --clip-frames 128 --out data/home-test --workers 2
	$(BIN)/dreamwalk train autoencode.doom --data data/home-train
	$(BIN)/dreamwalk train inverse.doom --data data/home-train
	$(BIN)/dreamwalk train nextframe.map --data data/home-train --codec runs/autoencode.doom $(MAP)
	$(BIN)/dreamwalk train nextframe.doom --data data/home-train $(DREAM)
	$(BIN)/dreamwalk train forcing.doom --data data/home-train $(FORCING)
	$(BIN)/dreamwalk collect doom --level procedural --split train --frames 230400 --clip-frames 96 --out data/rooms-train --workers 2
	$(BIN)/dreamwalk collect doom --level procedural --split test --frames 11520 --clip-frames 96 --out data/rooms-test --workers 2
	$(BIN)/dreamwalk collect doom --level procedural --split test --frames 41920 --clip-frames 2096 --clips-per-level 1 --out data/rooms-long
	$(BIN)/dreamwalk train forcing.layout --data data/rooms-train $(ROOMS)
	$(BIN)/dreamwalk train forcing.rooms --data data/rooms-train --precision bfloat16
	$(BIN)/dreamwalk train worldmem.layout --data data/rooms-train --start runs/forcing.rooms $(ROOMS)
	$(BIN)/dreamwalk train voyager.short --data data/rooms-train --precision bfloat16
	$(BIN)/dreamwalk train voyager.doom --data data/rooms-train --precision bfloat16
	$(BIN)/dreamwalk train autoencode.delta --data data/rooms-train --precision bfloat16
	$(BIN)/dreamwalk train autoencode.frames --data data/rooms-train --precision bfloat16
	$(BIN)/dreamwalk train artokens.doom --data data/rooms-train $(TOKENS) --out runs/artokens.rooms
	$(BIN)/dreamwalk train artokens.doom --data data/home-train $(TOKENS) --start runs/artokens.rooms
	$(BIN)/dreamwalk train autoencode.clips --data data/home-train
	$(BIN)/dreamwalk train moviegen.moment --data data/home-train $(CLIPS)
	$(BIN)/dreamwalk train moviegen.short --data data/home-train $(CLIPS)
	$(BIN)/dreamwalk train moviegen.doom --data data/home-train $(CLIPS)
	$(BIN)/dreamwalk evaluate runs/nextframe.doom --data data/home-test --inverse runs/inverse.doom
	$(BIN)/dreamwalk evaluate runs/forcing.doom --data data/home-test --inverse runs/inverse.doom
	$(BIN)/dreamwalk evaluate runs/forcing.rooms --report places --data data/rooms-long --frames 512
	$(BIN)/dreamwalk evaluate runs/voyager.doom --data data/rooms-test
	$(BIN)/dreamwalk evaluate runs/artokens.doom --data data/home-test --inverse runs/inverse.doom
	$(BIN)/dreamwalk evaluate runs/moviegen.doom --data data/home-test --train data/home-train --inverse runs/inverse.doom
	$(BIN)/python -m dreamwalk.training.export_release runs/autoencode.doom --bits 8 \
	  --out dreamwalk/pretrained/autoencode.doom.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/inverse.doom --bits 6 --out dreamwalk/pretrained/inverse.doom.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/forcing.doom --bits 6 --out dreamwalk/pretrained/forcing.doom.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/worldmem.layout --bits 6 --starts data/rooms-test \
	  --pixels runs/forcing.rooms --out dreamwalk/pretrained/worldmem.doom.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/forcing.rooms --alias-of worldmem.doom \
	  --out dreamwalk/pretrained/forcing.rooms.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/voyager.doom --bits 4 --starts data/rooms-test \
	  --out dreamwalk/pretrained/voyager.doom.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/moviegen.doom --bits 6 \
	  --out dreamwalk/pretrained/moviegen.doom.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/artokens.doom --bits 4 \
	  --out dreamwalk/pretrained/artokens.doom.safetensors
	$(BIN)/python -m dreamwalk.training.export_release runs/nextframe.doom --alias-of forcing.doom \
	  --out dreamwalk/pretrained/nextframe.doom.safetensors

clean:
	rm -rf $(VENV) build dist *.egg-info
