"""Jobs on a Spark Connect server: what they write is what they write in classic Spark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.spark.connect_server import LocalServer

from .. import sample_catalog
from ..sample_catalog import PRODUCTS, SampleCatalog, listing, run_job, table, values
from .connect_client import client, outcomes, run_jobs, run_until_killed, stored

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def options(sample: SampleCatalog, server: LocalServer | None = None) -> list[str]:
    remote = [] if server is None else ["--set", f"spark.remote={json.dumps(server.url)}"]
    return ["--config", str(sample.file), *remote]


def test_a_run_decides_on_a_connect_server_what_it_decides_in_classic_spark(
    template: SampleCatalog, first_run: tuple[SampleCatalog, dict[str, Any]], server: LocalServer, tmp_path: Path
) -> None:
    connect = template.copy_to(tmp_path / "connect")
    run_jobs(["enrich_catalog", *options(connect, server), "--no-report"])
    classic, _ = first_run
    for name in ("predictions", "attribute_values", "current_values"):
        assert stored(connect, name) == stored(classic, name), name
    assert outcomes(connect) == outcomes(classic)
    assert stored(connect, "attribute_values")  # some were published


LOSES_ITS_SERVER = """
import json, sys
from pyspark.sql.connect.client import retries
from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.spark import connecting

retries.Retrying.__init__.__defaults__ = (lambda seconds: None, *retries.Retrying.__init__.__defaults__[1:])
start, append, servers = connecting.LocalServer, Catalog.append, []

def started(settings):
    servers.append(start(settings))
    return servers[0]

def append_to_nowhere(catalog, table, *arguments):
    if table == "predictions":
        servers[0].process.kill()
    return append(catalog, table, *arguments)

connecting.LocalServer, Catalog.append = started, append_to_nowhere
cli.enrich_catalog(json.loads(sys.argv[1]))
"""


def test_a_run_whose_server_dies_changes_nothing_and_is_finished_by_the_next(
    template: SampleCatalog, first_run: tuple[SampleCatalog, dict[str, Any]], server: LocalServer, tmp_path: Path
) -> None:
    connect = template.copy_to(tmp_path / "connect")
    local = ["--config", str(connect.file), "--set", "spark.remote='local-connect'"]
    (lost,) = client(LOSES_ITS_SERVER, json.dumps(local))
    assert (lost["exit_code"], lost["error"]) == (4, "TemporaryFailure")
    assert "the Spark Connect server fails, does not answer, or has ended the session" in lost["message"]
    for name in ("predictions", "attribute_values", "current_values"):
        assert stored(connect, name) == stored(template, name), name
    run_jobs(["enrich_catalog", *options(connect, server), "--no-report"])
    for name in ("predictions", "attribute_values", "current_values"):
        assert stored(connect, name) == stored(first_run[0], name), name


@pytest.fixture
def empty(tmp_path: Path) -> SampleCatalog:
    """A catalog without products, and a champion to score them with."""
    sample = sample_catalog.build(tmp_path / "classic")
    rows = [listing(number) for number in range(PRODUCTS)]
    rows[5]["image"] = "nosuch.jpg"
    sample.feed([*rows, "no JSON"])
    sample_catalog.register(sample, tmp_path / "artifacts")
    sample.promotion.promote("1", expected_current=None)
    return sample


@pytest.mark.usefixtures("spark")
def test_a_backfill_and_its_rollbacks_write_on_a_connect_server_what_they_write_in_classic_spark(
    empty: SampleCatalog, server: LocalServer, tmp_path: Path
) -> None:
    """On the server the backfill of two chunks is killed where its second has published and is not recorded yet."""
    connect = empty.copy_to(tmp_path / "connect")
    chunked = ["--set", "backfill.chunk_products=12"]

    def classic(name: str, *arguments: str) -> dict[str, Any]:
        code, summary, _ = run_job(name, *options(empty), *arguments)
        assert code == 0, summary
        return summary

    classic("import_products")
    done = classic("backfill", *chunked)
    written = values(empty)
    assert len(done["chunks"]) == 2
    undone = classic("rollback_run", "--run-id", done["chunks"][1]["run_id"])
    assert values(empty) != written
    restored = classic("rollback_run", "--run-id", undone["run_id"])
    assert values(empty) == written

    on = options(connect, server)
    run_until_killed(["import_products", *on], ["backfill", *on, *chunked], rows=2)  # of the import, and of a chunk
    assert len({row["run_id"] for row in table(connect, "attribute_values")}) == 2
    assert [row["kind"] for row in table(connect, "runs")].count("enrich") == 1
    found = run_jobs(
        ["backfill", *on, *chunked],
        ["rollback_run", *on, "--run-id", done["chunks"][1]["run_id"]],
        ["rollback_run", *on, "--run-id", undone["run_id"]],
    )
    assert [summary["run_id"] for summary in found] == [done["run_id"], undone["run_id"], restored["run_id"]]
    for name in ("products", "quarantine", "predictions", "attribute_values", "current_values"):
        assert stored(connect, name) == stored(empty, name), name
    assert outcomes(connect) == outcomes(empty)
    assert {row["op"] for row in table(connect, "attribute_values")} == {"assert", "retract", "reinstate"}
