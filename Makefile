# `make help` lists the targets and the variables.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL: # `make -j train export bench` still goes in this order

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev,cpu
CONSTRAINTS ?= constraints.txt
DATA ?= data
RUN ?= runs/latest
BUNDLE ?= bundles/latest
# Phantoms show the chain in minutes: the network that ships is trained on, at a small size. Other data it may have
# seen, and a network or a recipe that was asked for is not it: such a training starts anew.
SHIPPED := train/tumorseg_train/demo/bundle
PHANTOMS := $(if $(wildcard $(DATA)),$(wildcard $(DATA)/PHANTOMS.txt),drawn)
ASKED := $(filter-out undefined,$(foreach name,ARCH ENCODER ENCODER_WEIGHTS RECIPE,$(origin $(name))))
ifneq ($(PHANTOMS),)
ifeq ($(ASKED),)
INIT := build/shipped.safetensors
ARCH := unet
ENCODER := timm-tf_efficientnet_lite0
RECIPE := quick
SIZE ?= 256
EPOCHS ?= 2
endif
endif
ARCH ?= unetplusplus
ENCODER ?= resnet34
ENCODER_WEIGHTS ?=
SIZE ?= 512
RECIPE ?= auto
EPOCHS ?=
BATCHES ?= 1
ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a worker: two workers that compute on two threads each wait for one another. In the order of the
# files, the long ones of benchmarks/ come first; xdist's own order would leave the files of few tests to the end.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder
CHECK = $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
optional = $(if $(2),$(1) $(2))

##@ Targets
help: ## list targets and variables
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "%s%s\n", (NR > 1 ? "\n" : ""), substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2} /^#: / {print "  " substr($$0, 4)}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	touch $@

install: $(STAMP) ## make the environment (.venv) with everything but the packages for a GPU

check: $(STAMP) ## ruff, ruff format --check, mypy strict, import rules; changes nothing
	$(CHECK)

format: $(STAMP) ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quick: $(STAMP) ## check, beside the tests that are not slow: the loop while you work
	mkdir -p build; ($(CHECK)) > build/check.log 2>&1 & checking=$$!; failed=0; \
	$(PYTEST) -m "not slow" $(ARGS) || failed=$$?; wait $$checking || failed=$$?; cat build/check.log; exit $$failed

test: $(STAMP) ## run all tests: about 23 minutes on 2 cores
	$(PYTEST) $(ARGS)

data: $(STAMP) ## find the images in DATA, check every file, write the split
	$(BIN)/tumorseg data prepare $(DATA) $(ARGS)

audit: $(STAMP) ## is evidence from DATA and its split worth anything? report in build/audit.html
	$(BIN)/tumorseg data audit $(DATA) --split $(DATA)/split.json --out build/audit.html $(ARGS)

train: $(STAMP) $(INIT) ## train ARCH with ENCODER on DATA, write RUN
	@$(if $(INIT),echo "phantoms: the network that ships is trained on; make train ARCH=unetplusplus starts one anew")
	$(BIN)/tumorseg train $(DATA) --out $(RUN) --arch $(ARCH) --encoder $(ENCODER) --size $(SIZE) --recipe $(RECIPE) \
	  $(call optional,--init,$(INIT)) $(call optional,--encoder-weights,$(ENCODER_WEIGHTS)) $(call optional,--epochs,$(EPOCHS)) $(ARGS)

build/shipped.safetensors: $(SHIPPED)/bundle.json | $(STAMP)
	mkdir -p $(@D)
	rm -f $@
	$(BIN)/tumorseg unfold $(SHIPPED) --out $@

export: $(STAMP) ## RUN -> sealed BUNDLE with ONNX FP32 and FP16
	$(BIN)/tumorseg export $(RUN) --out $(BUNDLE)

bench: $(STAMP) ## latency of PyTorch, ONNX Runtime, TensorRT; report in build/bench/
	$(BIN)/tumorseg bench $(BUNDLE) --run $(RUN) --out build/bench --batches $(BATCHES)

parity: $(STAMP) ## does every artefact of BUNDLE decide what PyTorch decided?
	$(BIN)/tumorseg parity $(BUNDLE) --run $(RUN) --out build/parity

demo: $(STAMP) ## the shipped network segments phantoms, broken copies of it are refused; page in build/demo.html
	$(BIN)/tumorseg demo --out build/demo.html $(ARGS)

docs: ## the documentation as a site, in an environment of its own; a warning ends it; build/site/index.html
	test -x build/docs-env/bin/python || $(PYTHON) -m venv build/docs-env
	build/docs-env/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 build/docs-env/bin/mkdocs build --strict

gpu-evidence: ## what only a machine with an NVIDIA GPU can verify, as it is: nothing is installed (docs/gpu.md)
	PYTHONPATH=$(CURDIR)/train:$(CURDIR)/export:$(CURDIR)/runtime:$(CURDIR)/benchmarks \
	  $(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m tumorseg_benchmarks.gpu_evidence $(ARGS)

gpu-null: $(STAMP) ## the GPU path without a GPU: onnxruntime-gpu, cuda-bindings and NVRTC on stub libraries
	bash tests/gpu_null/environment.sh build/gpu-null $(PYTHON)
	TUMORSEG_REQUIRE_GPU_NULL=1 $(PYTEST) tests/gpu_null $(ARGS)

scale: $(STAMP) ## predict on a Ray cluster, serving by Triton, each in an environment of its own (docs/scale.md)
	for kind in ray triton; do bash tests/scale/environment.sh $$kind build/scale $(BIN)/python; done
	OMP_NUM_THREADS=1 build/scale/ray/bin/python -m pytest tests/scale/test_ray.py tests/scale/test_object_store.py $(ARGS)
	OMP_NUM_THREADS=1 build/scale/triton/bin/python -m pytest tests/scale/test_triton.py $(ARGS)

reliability: $(STAMP) ## what a field does to it, row by row; the quick form, ARGS=--long the other (docs/reliability.md)
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m reliability $(ARGS)

clean: ## remove build output and caches; keeps .venv, DATA, RUN and BUNDLE
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

##@ Variables (make train DATA=... EPOCHS=...)
#: DATA             folder with the datasets; `data` gets phantoms if it does not exist, others with ARGS=--phantoms [data]
#: RUN              folder of the training run [runs/latest]
#: BUNDLE           folder of the exported bundle [bundles/latest]
#: ARCH             unetplusplus, unet, deeplabv3, or another of smp [unetplusplus; of phantoms the shipped one's, unet]
#: ENCODER          any encoder of segmentation-models-pytorch [resnet34; of phantoms the shipped network's]
#: ENCODER_WEIGHTS  imagenet, none, or a file [the recipe's: quick none, full imagenet]
#: SIZE             height and width of the network's input in pixels, a multiple of 32 [512; of phantoms 256]
#: RECIPE           auto (full with CUDA, else quick), quick, cpu or full [auto]
#: EPOCHS           passes over the training images [the recipe's; of phantoms 2]
#: BATCHES          batch sizes that bench times, with commas between [1]
#: PYTHON, VENV     interpreter that makes the environment, and its folder [python3, .venv]
#: EXTRAS           extras to install; with a GPU: dev,gpu-cu13 [dev,cpu]
#: CONSTRAINTS      file with tested versions; /dev/null for the newest [constraints.txt]
#: WORKERS          processes that share the tests of quick and test [2]
#: ARGS             more arguments for quick, test, data, audit, train, demo, gpu-evidence and reliability

.PHONY: help install check format quick test data audit train export bench parity demo docs gpu-evidence gpu-null reliability clean
