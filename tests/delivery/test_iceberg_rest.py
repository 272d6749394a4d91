"""Deliveries through an Iceberg REST catalog: tokens, servers that fail, commits whose answer is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog_enrichment.delivery import deliver, status
from catalog_enrichment.delivery import iceberg_rest as limited
from catalog_enrichment.delivery.export_changes import PositionFiles
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, TemporaryFailure

from ..postgres_server import free_port
from .histories import Versions, value
from .iceberg_rest import CUT, SECRET, SILENT, TOKEN, RestCatalog, rest_catalog
from .iceberg_tables import IcebergTable, config_of

VARIABLE = "LAKE_DELIVERY"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RestCatalog]:
    with rest_catalog(tmp_path / "lake") as found:
        yield found


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[IcebergTable, RestCatalog]]:
    monkeypatch.setenv(VARIABLE, TOKEN)
    folder = tmp_path / "lake"
    folder.mkdir()
    with rest_catalog(folder) as server:
        table = IcebergTable(folder, config_of(folder, uri=server.uri, warehouse="", login_variable=VARIABLE))
        deliver.migrate(table.config, say=lambda _: None)
        yield table, server


def test_a_delivery_through_a_rest_catalog(served: tuple[IcebergTable, RestCatalog], versions: Versions) -> None:
    table, server = served
    for number in range(1, 4):
        versions.show({(f"p{index}", "color"): value("Red") for index in range(number)}, f"run-{number}")
        table.deliver(versions)
        assert table.rows() == versions.seen()
    assert len(table.summaries()) == 3
    assert "POST /catalog/v1/namespaces/enriched/tables/delivered_values" in server.requests
    versions.show({}, "run-4")
    (row,) = status.delivery_status(versions.catalog, table.config, PositionFiles(table.folder / "positions"))
    assert (row["consumer"], row["about_rows"], row["lag_commits"]) == ("iceberg", 3, 1)
    assert row["where"] == f"enriched.delivered_values at 127.0.0.1:{server.server_port}/catalog"
    assert row["moved_at"].startswith("20")


def test_a_client_and_its_secret_get_a_token(
    served: tuple[IcebergTable, RestCatalog], versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, server = served
    monkeypatch.setenv(VARIABLE, f"delivery:{SECRET}")
    oauth = {"oauth2-server-uri": f"{server.uri}/v1/oauth/tokens", "type": "rest"}
    config = config_of(table.folder, uri=server.uri, warehouse="", login_variable=VARIABLE, properties=oauth)
    versions.show({("a", "color"): value("Red")}, "run-1")
    assert deliver.deliver_values(versions.catalog, config, say=lambda _: None)["upserted"] == 1
    monkeypatch.setenv(VARIABLE, "delivery:wrong-and-secret")
    with pytest.raises(ConfigError, match="Check the token") as refused, deliver.open_sink(config):
        pass
    assert "wrong-and-secret" not in str(refused.value)


def test_a_commit_that_is_there_though_the_server_says_conflict_has_succeeded(
    served: tuple[IcebergTable, RestCatalog], versions: Versions
) -> None:
    """As where a proxy sends the request again after the answer to the first was lost: no file may be deleted."""
    table, server = served
    for number in (1, 2):
        versions.show({(f"p{index}", "color"): value("Red") for index in range(number)}, f"run-{number}")
        server.fault, server.applied = 409, True
        assert table.deliver(versions)["upserted"] == 1
        assert table.rows() == versions.seen()
        assert len(table.summaries()) == number


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("fault", [500, 502, 503, 504, CUT, SILENT])
def test_a_commit_whose_answer_is_lost_is_there_once(
    fault: int,
    applied: bool,
    served: tuple[IcebergTable, RestCatalog],
    versions: Versions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server fails after, or before, it has committed: the next delivery sees which."""
    monkeypatch.setattr(limited, "SECONDS", (1.0, 1.0))
    table, server = served
    versions.show({("a", "color"): value("Red")}, "run-1")
    table.deliver(versions)
    versions.show({("a", "color"): value("Blue"), ("b", "color"): value("Red")}, "run-2")
    server.fault, server.applied = fault, applied
    with pytest.raises(TemporaryFailure, match="Nothing of this step was applied, or all of it; run again") as raised:
        table.deliver(versions)
    assert ("timed out" in str(raised.value)) == (fault == SILENT)
    assert len(table.summaries()) == 1 + applied
    assert table.deliver(versions)["steps"] == 1 - applied
    assert table.rows() == versions.seen()
    assert len(table.summaries()) == 2


def test_a_conflict_that_the_server_finds_applies_nothing(
    served: tuple[IcebergTable, RestCatalog], versions: Versions
) -> None:
    table, server = served
    versions.show({("a", "color"): value("Red")}, "run-1")
    server.fault = 409
    with pytest.raises(TemporaryFailure, match="another delivery or program changed it"):
        table.deliver(versions)
    assert not list(table.folder.rglob("*.parquet")), "its files are deleted"
    assert table.deliver(versions)["upserted"] == 1


def test_a_wrong_token_a_server_that_is_away_and_one_that_is_no_catalog(
    served: tuple[IcebergTable, RestCatalog], versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, server = served
    versions.show({("a", "color"): value("Red")}, "run-1")

    def ended(uri: str, kind: type[CatalogEnrichmentError], message: str) -> None:
        config = config_of(table.folder, uri=uri, warehouse="", login_variable=VARIABLE)
        with pytest.raises(kind, match=message) as raised:
            deliver.deliver_values(versions.catalog, config, say=lambda _: None)
        assert "wrong-and-secret" not in str(raised.value)

    ended(f"http://127.0.0.1:{free_port()}", TemporaryFailure, "run again")
    ended(f"http://127.0.0.1:{server.server_port}/else", ConfigError, "Run|Is delivery")
    monkeypatch.setenv(VARIABLE, "wrong-and-secret")
    ended(server.uri, ConfigError, r"Check the token in delivery\.iceberg\.login_variable")
