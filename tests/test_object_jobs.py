"""The jobs on a catalog in an object store: a real S3 server, the command lines, kills, and the lease."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.registry.mlflow_store import Store
from catalog_enrichment.spark import session

from . import object_sample, sample_catalog
from .object_store import CREDENTIALS
from .sample_catalog import killed_at, run_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from .object_store import ObjectStoreServer
    from .sample_catalog import SampleCatalog


@pytest.fixture
def sample(object_store: ObjectStoreServer, tmp_path: Path) -> SampleCatalog:
    """No products and no model yet; its catalog is a new place of the store."""
    sample = sample_catalog.build(tmp_path / "sample")
    object_sample.moved(sample, object_store)
    return sample


def job(sample: SampleCatalog, name: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    return run_job(name, "--config", str(sample.file), *arguments)


def test_jobs_without_spark_work_and_print_no_secret(sample: SampleCatalog) -> None:
    code, summary, printed = job(sample, "list_runs")
    assert (code, summary["error"]) == (2, "ConfigError")
    assert "there are no runs in s3://catalogs/sample/" in summary["message"]
    code, summary, printed_too = job(sample, "enrich_catalog")
    assert code == 2
    assert "run train_model first" in summary["message"]
    assert not any(secret in printed + printed_too for secret in CREDENTIALS.values())


@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ("catalog.storage.aws_endpoint=http://127.0.0.1:9", 4, "does not answer"),
        ("catalog.path=s3://no-such-bucket/x", 2, "no such bucket"),
        ("catalog.path=hdfs://namenode/x", 2, "s3://, gs://, az://"),
    ],
)
def test_a_store_that_cannot_be_used_ends_a_job_before_spark_starts(
    sample: SampleCatalog, setting: str, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "start", lambda *_: pytest.fail("Spark was started"))
    ended, summary, printed = job(sample, "import_products", "--set", setting)
    assert ended == code
    assert message in summary["message"]
    assert not any(secret in printed for secret in CREDENTIALS.values())


def test_a_second_job_is_refused_while_the_first_one_writes(
    sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "start", lambda *_: pytest.fail("Spark was started"))
    with Catalog.of(load_config(sample.file)).writing():
        code, summary, _ = job(sample, "import_products")
    assert (code, summary["status"]) == (3, "refused")
    assert "another job is writing to this catalog (s3://" in summary["message"]


def test_one_process_at_a_time_promotes(sample: SampleCatalog) -> None:
    """With a server for MLflow there is no folder for a lock's file."""
    server = ["mlflow.tracking_uri='http://127.0.0.1:9'", "mlflow.timeout_seconds=1"]
    store = Store(load_config(sample.file, server))
    other = Store(load_config(sample.file, [*server, "mlflow.model_name=another"]))
    with store.promoting():
        refused = pytest.raises(GateRefused, match="another process is promoting catalog-enrichment")
        with refused, Store(load_config(sample.file, server)).promoting():
            pytest.fail("two promote")
        with other.promoting():
            pass
    with store.promoting():
        pass


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_flow_on_an_object_store(sample: SampleCatalog, spark: SparkSession, tmp_path: Path) -> None:
    """Import, enrich, killed and run again, roll back, correct, maintain, export; the same values as in a folder."""
    assert spark
    folder = sample_catalog.build(tmp_path / "folder")
    rows = [sample_catalog.listing(number) for number in range(sample_catalog.PRODUCTS)]
    seen: list[list[tuple[Any, ...]]] = []
    for place in (sample, folder):
        place.file.write_text(place.file.read_text() + "[maintenance]\ncompact_files = 3\nretention_hours = 0\n")
        sample_catalog.register(place, tmp_path / place.folder.name, seed=1)
        place.promotion.promote("1", expected_current=None)
        place.feed(rows)
        code, summary, printed = job(place, "import_products")
        assert (code, summary["new"]) == (0, sample_catalog.PRODUCTS)
        if place is sample:
            with killed_at(Catalog, "refresh_current_values", unless_label="catch-up"):
                job(place, "enrich_catalog", "--no-report")
        code, enriched, more = job(place, "enrich_catalog")
        assert code == 0, enriched
        assert Path(enriched["report"]).stat().st_size > 1000
        assert job(place, "enrich_catalog")[1]["status"] == "nothing_to_do"
        run_id = enriched["run_id"]
        assert job(place, "rollback_run", "--run-id", run_id)[0] == 0
        lake = Catalog.of(load_config(place.file))
        assert not any(row["run_id"] == run_id for row in object_sample.rows(lake, "current_values"))
        assert job(place, "set_value", "p001", "color", "Red", "--by", "tester")[0] == 0
        before = values(lake)
        code, cleaned, last = job(place, "maintain_catalog", "--force")
        assert (code, cleaned["status"]) == (0, "succeeded")
        assert values(lake) == before
        assert job(place, "export_values", "--out", str(tmp_path / f"{place.folder.name}.csv"))[0] == 0
        assert job(place, "explain_value", "--product-id", "p001", "--attribute", "color")[0] == 0
        assert not any(secret in printed + more + last for secret in CREDENTIALS.values())
        seen.append(before)
    assert seen[0] == seen[1]
    assert seen[0]


def values(lake: Catalog) -> list[tuple[Any, ...]]:
    names = ("product_id", "attribute", "values", "source")
    return sorted(tuple(row[name] for name in names) for row in object_sample.rows(lake, "current_values"))


SLEEPER = """
import sys
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
lake = Catalog.of(load_config(sys.argv[1]))
with lake.writing():
    print("holding", flush=True)
    sys.stdin.readline()
    lake.append_rows("attribute_values", [], "run-late")
"""


def test_a_process_that_was_stopped_past_its_lease_commits_nothing(sample: SampleCatalog) -> None:
    """SIGSTOP, as a suspended machine or a starved container; the other job takes over; SIGCONT."""
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(sample.file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as sleeper:  # fmt: skip
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "holding\n"
        sleeper.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        lake = Catalog.of(load_config(sample.file))
        with lake.writing():
            assert time.monotonic() - begin > 1, "the lease had not expired"
            sleeper.send_signal(signal.SIGCONT)
            _, said = sleeper.communicate("go on\n", timeout=60)
            assert sleeper.returncode == 1
            assert "TemporaryFailure" in said
            assert not lake.committed("attribute_values", "run-late")
