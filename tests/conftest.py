"""The environment of all tests, one small Spark session, and a sample catalog before and after its first run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from pyspark.sql import SparkSession

    from catalog_enrichment.catalog.lake import Catalog

    from .object_store import ObjectStoreServer
    from .postgres_server import PostgresServer
    from .sample_catalog import SampleCatalog

# Set before the libraries are imported: no model hub, no telemetry; Spark's workers run this Python.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
if os.environ.get("PYTEST_XDIST_WORKER"):
    # with more threads than cores, threads that wait for each other train many times slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # pyspark takes a main module with neither spec nor file for a run of its doctests, and exits
    sys.modules["__main__"].__spec__ = ModuleSpec("__main__", None)
# the JVM's second compiler costs more than it saves on a few rows, and without it the JVM keeps room for 48 MiB of
# compiled code, which is full after two minutes; the jobs that tests start inherit this
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC")


BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_LONGEST_FIRST = (
    "lifecycle/",
    "demo/",
    "test_bad_input.py",
    "ingest/test_job.py",
    "enrichment/",
    "comparison/test_job.py",
    "audit/",
    "operations/",
    "training/",
    "ingest/",
)
"""Files below tests/ whose tests take minutes. A process runs all tests of a file (--dist loadfile): the last file is
to be short, or the other process waits for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of :data:`_LONGEST_FIRST` in front, those of a file together (`make test` keeps the order)."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        starts = [index for index, start in enumerate(_LONGEST_FIRST) if file.startswith(start)]
        return min(starts, default=len(_LONGEST_FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session; a task that fails once fails the test."""
    from pyspark.sql import SparkSession

    from catalog_enrichment.spark.api_mode import remember_names

    session = (
        SparkSession.builder.master("local[2]")
        .appName("tests")
        .config("spark.driver.memory", "1g")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.python.sql.dataFrameDebugging.enabled", "false")
        .config("spark.sql.ui.retainedExecutions", "20")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.task.maxFailures", "1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.caseSensitive", "true")
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "64")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    remember_names(session)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real Chromium. Where there is none its tests are skipped and say so; with CI=true they fail."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"NO CHROMIUM, PAGES ARE NOT TESTED: install one of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server. Where none is installed, the tests that need it are skipped; with CI=true they fail."""
    import tempfile

    from . import postgres_server

    try:
        postgres_server.programs()
    except FileNotFoundError as missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"NO POSTGRESQL, NOT TESTED: {missing}")
    # outside pytest's folders, which only their owner can enter: as root the server runs as another user
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = postgres_server.PostgresServer(Path(folder) / "data")
        server.start()
        yield server
        server.stop("immediate")


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStoreServer]:
    """An S3 server, with its credentials in the environment."""
    from .object_store import CREDENTIALS, ObjectStoreServer

    server = ObjectStoreServer(tmp_path_factory.mktemp("s3"))
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server
    server.kill()


@pytest.fixture
def catalog(spark: SparkSession, tmp_path: Path) -> Catalog:
    """A catalog without tables."""
    from catalog_enrichment.catalog.lake import Catalog

    return Catalog(tmp_path / "catalog", spark)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> SampleCatalog:
    """Products imported, two versions registered, the first of them champion. Tests work on copies."""
    from . import sample_catalog  # not above: what it imports reads the environment

    sample = sample_catalog.build(tmp_path_factory.mktemp("template") / "sample", spark)
    rows = [sample_catalog.listing(number) for number in range(sample_catalog.PRODUCTS)]
    rows[5]["image"] = "nosuch.jpg"
    rows[6]["opt_out"] = True
    sample.feed(rows)
    sample.import_products()
    scratch = tmp_path_factory.mktemp("artifacts")
    sample_catalog.register(sample, scratch, seed=1)
    sample_catalog.register(sample, scratch, seed=2)
    sample.promotion.promote("1", expected_current=None)
    return sample


@pytest.fixture
def sample(template: SampleCatalog, tmp_path: Path) -> SampleCatalog:
    return template.copy_to(tmp_path / "sample")


@pytest.fixture(scope="session")
def first_run(
    template: SampleCatalog, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SampleCatalog, dict[str, Any]]:
    """The template after its first run, and the run's summary."""
    from .sample_catalog import enrich

    sample = template.copy_to(tmp_path_factory.mktemp("first") / "sample")
    return sample, enrich(sample)


@pytest.fixture
def enriched(first_run: tuple[SampleCatalog, dict[str, Any]], tmp_path: Path) -> SampleCatalog:
    """A copy of the sample after its first run, to change."""
    return first_run[0].copy_to(tmp_path / "enriched")


@pytest.fixture
def run(first_run: tuple[SampleCatalog, dict[str, Any]]) -> dict[str, Any]:
    """The summary of the first run."""
    return first_run[1]
