# On a new machine `make demo` or `make test` is enough: both create .venv first. `make help` lists all targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LOWEST := .venv-lowest
# docs/install.md says why; MLflow 3.8 does not import SQLAlchemy 2.1
OLDEST := mlflow==3.8.0 pyspark==4.1.0 pandas==2.2.3 'sqlalchemy<2.1'
# uv verifies the hashes in constraints.txt. --require-hashes is no option: an editable package has no hash.
PINNED := --verify-hashes --constraint constraints.txt --build-constraint constraints.txt

# Compiled bytecode is kept even where the shell sets this: compiling torch and transformers takes 15 s in every process.
# `setup` compiles it, on all cores; else the first demo's processes would, one after the other and some of it twice.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo audit_demo test test-slow lint types check compare fashion promise scale audit_loop bench faults faults_stores lifecycle ops mutants docs constraints build clean wild lowest

help:            ## list the targets
	@grep -E '^[a-z_-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup: $(READY)  ## create .venv with everything pinned in constraints.txt, and verify the hashes

$(READY): pyproject.toml constraints.txt
	@command -v java >/dev/null || { echo "Spark needs Java 17 or newer: apt-get install openjdk-17-jre-headless, or set JAVA_HOME" >&2; [ -n "$$JAVA_HOME" ]; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	awk '/^[a-z0-9]/ {is_uv = /^uv==/} is_uv' constraints.txt > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(VENV)/uv.txt
	$(BIN)/python -m uv pip install --python $(BIN)/python --quiet --compile-bytecode $(PINNED) --editable '.[dev,pretrained]'
	@touch $(READY)

demo: setup      ## the whole loop on a generated marketplace: import, train, certify, promote, enrich, report
	$(BIN)/python -m catalog_enrichment.demo

audit_demo: setup ## the review page over the demo's catalog (after make demo), with a sample of 200 written values
	$(BIN)/python -m catalog_enrichment.demo.audit_demo $(if $(PORT),--port $(PORT))

test: setup      ## the tests (under 12 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup ## the tests marked slow
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder

lowest:          ## the tests of the registry and of Spark with the oldest MLflow, Spark and pandas that are supported, in .venv-lowest
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	printf '%s\n' $(OLDEST) > $(LOWEST)/oldest.txt
	$(LOWEST)/bin/python -m uv pip install --python $(LOWEST)/bin/python --quiet --override $(LOWEST)/oldest.txt --editable '.[dev,pretrained]'
	$(LOWEST)/bin/python -m pytest -W default tests/registry tests/inference/test_pyfunc.py tests/spark tests/ingest/test_job.py tests/enrichment/test_pipeline.py

lint: setup      ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup     ## mypy --strict on src
	$(BIN)/mypy

check: lint types test ## what CI runs

compare: setup   ## train the five papers' models and write their tables: make compare, or make compare DATA=FILE.parquet
	$(BIN)/python -m catalog_enrichment.demo.compare $(if $(DATA),--config deploy/config/compare_fashion.toml --data "$(DATA)",--generate)

fashion: setup   ## import, train, promote and enrich real listings, and measure the precision: make fashion DATA=FILE.parquet
	$(BIN)/python tests/benchmarks/fashion.py --config deploy/config/fashion.toml --data $(DATA)

promise: setup   ## simulate certification where the truth is known: violations of the 95% promise, and recall
	$(BIN)/python tests/benchmarks/promise.py

wild: setup      ## try every file of a folder, from init_project to enrich_catalog --dry-run: make wild FOLDER=path
	$(BIN)/python -m tests.wild.run "$(FOLDER)"

scale: setup     ## what 10,000, 100,000 and 1,000,000 products cost: seconds and memory of every step
	$(BIN)/python tests/benchmarks/scale.py

audit_loop: setup ## the audit against the truth: alarms by simulation, and the closed loop; DATA=FILE for the fashion listings
	$(BIN)/python tests/benchmarks/audit.py --loop $(if $(DATA),--data "$(DATA)")

bench: setup     ## scoring against the plain loop, mlflow's spark_udf, predict_batch_udf, ray and daft: make bench, or make bench DATA=FILE.parquet; PROFILE=1: where a worker's time goes
	$(BIN)/python tests/benchmarks/inference.py $(if $(DATA),--data "$(DATA)") $(if $(PROFILE),--profile)

mutants: setup   ## change the code in small ways and list the changes that no test notices: make mutants ROOM=precision, or ROOM=precision/thresholds
	OMP_NUM_THREADS=1 $(BIN)/mutmut run $(if $(ROOM),"catalog_enrichment.$(subst /,.,$(ROOM)).*")
	@$(BIN)/mutmut results | grep -E ' catalog_enrichment\.$(subst /,.,$(ROOM)).*: (survived|no tests)' || true

faults: setup    ## kill jobs, tasks and executors, fill disks and import hostile rows; what the catalog holds afterwards
	$(BIN)/python -m tests.benchmarks.faults

faults_stores: setup ## the same with an S3 server under the catalog and with the delivery to PostgreSQL; servers, jobs and leases fail
	$(BIN)/python -m tests.benchmarks.faults_stores

lifecycle: setup ## a year of a shop in one run: 52 imports and nights with all that happens to a catalog; prints the year's table
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.lifecycle.year --table

ops: setup       ## prove what is in deploy/: alert rules, cron, Airflow, image, manifests, Spark's GPU settings (10 minutes with Airflow)
	$(BIN)/python -m tests.deploy.proofs $(PROOF)

docs: setup      ## write docs/reference/ again from the code, and the documentation as HTML into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

constraints: setup ## resolve constraints.txt again from pyproject.toml, with the newest versions and their hashes
	$(BIN)/python -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet --upgrade -o constraints.txt

build: setup     ## the wheel and its SBOM (the packages of .venv, their versions and licences, as CycloneDX), in dist/
	$(BIN)/python -m build --wheel --no-isolation
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.cdx.json $(BIN)/python

clean:           ## remove the environment and everything generated
	rm -rf $(VENV) $(LOWEST) var dist build docs/_build mutants
