# Two commands for a fresh machine (Debian or Ubuntu with python3 >= 3.10, python3-venv, git, make):
#   make demo    sets everything up and runs the main job
#   make test    sets everything up and passes the tests
# Whoever changes something: make check (90 s), make test (6 min), make test-all (25 min); see CONTRIBUTING.md.

PYTHON ?= python3
DAG ?= echo_zip
AIRFLOW_PORT ?= 8080
MLFLOW_PORT ?= 5000
SAGEMAKER_PORT ?= 4599
DOCS_PORT ?= 8001
WORKERS ?= 2
export DAG CONF ONLY PROCESSES
# Where this is set, each process of the hundreds that the tests start would compile its imports anew.
unexport PYTHONDONTWRITEBYTECODE
demo up: export AIRFLOW_PORT := $(AIRFLOW_PORT)
demo up: export MLFLOW_PORT := $(MLFLOW_PORT)

BIN := .venv/bin
DOCS := build/docs-env/bin
RELEASE := build/release-env/bin
CIRCLE = $(BIN)/python tools/circles.py
WITH = $(if $(LOAD),--load $(LOAD)) $(if $(PROCESSES),--processes $(PROCESSES)) -- $(PYTEST_ARGS)
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: setup ## Run a DAG and show its MLflow runs (DAG=echo_zip, CONF='{"text": "hello", "num": 3}')
	@$(BIN)/python tools/demo.py

.PHONY: demo-sagemaker
demo-sagemaker: setup-dev ## The same with every step as a training job, on a SageMaker stand-in, without AWS
	@$(BIN)/python tools/demo_sagemaker.py

.PHONY: aws-check
aws-check: setup-dev ## On your AWS account: three training jobs, and what held (ROLE=arn:…, S3_URI=s3://…; tests/aws/README.md)
	@$(BIN)/python tests/aws/run.py --role "$(ROLE)" --s3-uri "$(S3_URI)" $(if $(IMAGE),--image $(IMAGE))

.PHONY: sagemaker-local
sagemaker-local: setup-dev ## Run the SageMaker stand-in until Ctrl-C (SAGEMAKER_PORT=4599)
	@$(BIN)/python -m sagemaker_local --port $(SAGEMAKER_PORT)

.PHONY: up
up: setup ## Start Airflow and MLflow in the browser, until Ctrl-C (AIRFLOW_PORT=8080, MLFLOW_PORT=5000)
	@$(BIN)/python tools/up.py

.PHONY: check
check: setup-dev ## Style, types, import contracts, unit tests: no server, no network (90 s); LOAD=2 as below
	@$(CIRCLE) check $(WITH)

.PHONY: test
test: setup-dev ## check, and DAG runs in one process with a real MLflow server (6 min); LOAD=2: on a busy machine
	@$(CIRCLE) test $(WITH)

.PHONY: test-all
test-all: setup-dev ## test, and samples, containers, browser, databases, SageMaker stand-in, some faults (25 min)
	@$(CIRCLE) test-all $(WITH)

.PHONY: nightly
nightly: ## What .ci/run does, with every fault on both databases, random faults, full size, all Pythons (hours)
	@NIGHTLY=1 bash .ci/run

.PHONY: mutants
mutants: setup-dev ## Change the library line by line; print how many changes make check's tests notice (FILES='...', SAMPLE=60)
	@$(BIN)/python tools/mutants.py $(if $(filter 1,$(SHOWN)),--shown) $(if $(SAMPLE),--sample $(SAMPLE)) $(FILES)

.PHONY: fuzz
fuzz: setup-dev ## Make up files, values, addresses and zip files; only sentences may come of them (MINUTES=60)
	@$(BIN)/python -m tests.security.fuzz --minutes $(or $(MINUTES),60) $(TARGET)

.PHONY: test-full-size
test-full-size: setup-dev ## The tests that train and build in full size, with a container engine (10 minutes and more)
	@FULL_SIZE=1 $(BIN)/python -m pytest -m full_size $(PYTEST_ARGS)

.PHONY: lint
lint: setup-dev ## The style (ruff), types (mypy) and import contracts (import-linter) of check alone
	@$(CIRCLE) lint

.PHONY: faults
faults: setup-dev ## Break things on a real Airflow and MLflow (ONLY='words', THIRD=0, or N=200 SEED=7, or OUTAGE=10)
	@$(if $(OUTAGE),exec $(BIN)/python -m tests.faults.outage --minutes $(OUTAGE);) \
	  $(BIN)/python -m tests.faults.run --only "$$ONLY" $(if $(N),--random $(N)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(filter postgresql,$(STORE)),--postgresql) $(if $(TABLE),--table $(TABLE)) \
	  $(if $(THIRD),--third $(THIRD)) $(if $(AGAIN),--again)

.PHONY: conformance
conformance: setup-dev ## What every backend must pass, on ours and on a toy of another package (docs/backends.md)
	@NIGHTLY=1 $(BIN)/python -m pytest tests/unit/backends/test_conformance.py tests/system/test_conformance.py $(PYTEST_ARGS)

.PHONY: bench
bench: setup-dev ## Measure against the other ways to run a project (ROWS="1 4", QUICK=1, WRITE=1 for docs)
	@$(BIN)/python -m benchmarks.run $(ROWS) $(if $(filter 1,$(QUICK)),--quick) $(if $(filter 1,$(WRITE)),--write)

.PHONY: env
env: ## Write .env, the secrets of docker-compose.yaml; keeps what is there (ENV_FILE=.env)
	@$(PYTHON) tools/env.py

.PHONY: stack-build
stack-build: setup-dev ## Build the image of the stack; stack-up does it too
	@$(BIN)/python tools/stack.py build

.PHONY: stack-up
stack-up: setup-dev ## Start Airflow, Celery workers, MLflow, PostgreSQL, Redis and S3 in containers (WORKERS=2)
	@$(BIN)/python tools/stack.py up --workers $(WORKERS)

.PHONY: stack-down
stack-down: setup-dev ## Stop them; the data stays (VOLUMES=1 removes it)
	@$(BIN)/python tools/stack.py down $(if $(filter 1,$(VOLUMES)),--volumes)

.PHONY: stack-test
stack-test: setup-dev ## Run DAGs on that stack and check every record; starts it if need be (10 minutes)
	@STACK=1 $(BIN)/python -m pytest tests/stack $(PYTEST_ARGS)

.PHONY: stack-faults
stack-faults: setup-dev ## Break parts of a stack of its own while steps run (ONLY='words', THIRD=0, AGAIN=1, KEEP=1)
	@$(BIN)/python -m tests.stack.faults --only "$$ONLY" $(if $(THIRD),--third $(THIRD)) $(if $(AGAIN),--again) \
	  $(if $(KEEP),--keep)

.PHONY: docs
docs: setup-docs ## Build the site of the documentation into build/site; a broken link is a failure
	@$(DOCS)/python tools/docs.py

.PHONY: docs-serve
docs-serve: setup-docs ## Show that site, and changes of its pages, until Ctrl-C (DOCS_PORT=8001)
	@$(DOCS)/python tools/docs.py --serve --address 127.0.0.1:$(DOCS_PORT)

.PHONY: release
release: setup-release ## Build wheel, sdist, SBOMs and their hashes from the last commit, into dist; uploads nothing (OUT=dist)
	@$(RELEASE)/python tools/release.py --out $(or $(OUT),dist)

.PHONY: audit
audit: setup-release ## Ask OSV whether a package of the locks has a known weakness (needs the network; AUDIT_ARGS)
	@$(RELEASE)/python tools/audit.py $(AUDIT_ARGS)

.PHONY: matrix
matrix: setup-dev ## Demo and tests on every Python (VERSIONS="3.10 3.13", PARTS="check demo"; LOWEST=1: lowest versions)
	@$(BIN)/python tools/matrix.py $(VERSIONS) $(if $(PARTS),--parts $(PARTS)) $(if $(filter 1,$(LOWEST)),--lowest)

.PHONY: lock
lock: setup-dev ## Resolve requirements anew, one resolution for Python 3.10 to 3.13
	@$(BIN)/python tools/lock.py

.PHONY: clean
clean: ## Remove what the other targets made (.venv, .airflow, build, caches)
	@rm -rf .venv .airflow build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: setup
setup:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install it with: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py

.PHONY: setup-docs
setup-docs:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install it with: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py --docs

.PHONY: setup-release
setup-release:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install it with: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py --release

.PHONY: setup-dev
setup-dev:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install it with: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py --dev
