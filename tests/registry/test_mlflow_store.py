"""MLflow servers that answer, fail, or do not answer, and a local store that was moved."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import RegistryError
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import local_store
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.trained_model import TrainedModel

from ..sample_catalog import build
from .tiny_version import config_in


@contextmanager
def mlflow_server(status: int, body: bytes, *answered: str) -> Iterator[str]:
    """A server that answers requests for the paths that end with one of ``answered``, and no others."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            good = self.path.partition("?")[0].endswith(answered)
            content = b"{}" if good else body
            self.send_response(200 if good else status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815  the name that http.server asks for

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


CONNECTED = ("/health", "/experiments/search")
DATABASE_DOWN = json.dumps({"error_code": "INTERNAL_ERROR", "message": "(OperationalError) server closed"}).encode()
GONE = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}).encode()
FORBIDDEN = json.dumps({"error_code": "PERMISSION_DENIED", "message": "not you"}).encode()


def test_a_server_whose_uri_has_a_password_and_a_path_is_found(tmp_path: Path) -> None:
    with mlflow_server(503, b"<html>busy", "/mlflow/health", "/experiments/search") as uri:
        with_password = uri.replace("://", "://user:secret@") + "/mlflow"
        assert Registry(config_in(tmp_path, tracking_uri=with_password)).connect()


FAILS, REFUSES = "MLflow server fails or does not answer", "MLflow server refuses the request"
LOGIN = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASS"


@pytest.mark.parametrize(
    ("answered", "status", "body", "retries", "code", "message"),
    [
        (("/health",), 503, b"<html>busy", "0", 4, FAILS),
        (("/health",), 503, b"<html>busy", "1", 4, FAILS),
        (CONNECTED, 503, b"<html>busy", "0", 4, FAILS),
        (CONNECTED, 503, b"<html>busy", "1", 4, FAILS),
        (CONNECTED, 500, DATABASE_DOWN, "0", 4, FAILS),
        (CONNECTED, 429, b"slower", "0", 4, FAILS),
        (CONNECTED, 403, FORBIDDEN, "0", 2, REFUSES),
        (CONNECTED, 403, b"Permission denied", "0", 2, REFUSES),
        (("/health",), 401, b"You are not authenticated", "0", 2, LOGIN),
        ((*CONNECTED, "/registered-models/search"), 404, GONE, "0", 2, "no alias 'champion' of model"),
    ],
)
def test_a_failing_server_is_no_missing_version_and_no_bug(
    answered: tuple[str, ...],
    status: int,
    body: bytes,
    retries: str,
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"MAX_RETRIES": retries, "BACKOFF_FACTOR": "0", "BACKOFF_JITTER": "0"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    config = ["--config", str(build(tmp_path / "sample").file)]
    with mlflow_server(status, body, *answered) as uri:
        assert cli.enrich_catalog([*config, "--set", f"mlflow.tracking_uri={uri}"]) == code
    printed = capsys.readouterr()
    assert message in json.loads(printed.out.splitlines()[-1])["message"]
    assert "Traceback" not in printed.err


COMPARE = """
[[compare.recipes]]
name = "words"
[[compare.tables]]
title = "T"
recipes = ["words"]
metrics = ["accuracy"]
"""


# a store that was moved


@pytest.fixture
def before(empty_store: Path, trained: TrainedModel, tmp_path: Path) -> Path:
    """A folder with a store, whose name has what SQL and URIs treat in a way of their own, and a registered version."""
    folder = tmp_path / "first 100%_place"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    decided = HeldOutDecision("p1", 1, "color", ("Red",), ("Red",), Modality.BOTH)
    Registry(config_in(folder)).register(replace(trained, held_out=[decided]))
    return folder


def locations(store: Path) -> list[str]:
    with closing(sqlite3.connect(store)) as connection:
        return [
            place
            for table, column in local_store.ARTIFACT_PLACES
            for (place,) in connection.execute(f"SELECT {column} FROM {table}")
        ]


def test_a_moved_store_finds_its_versions_and_takes_new_ones(
    before: Path, trained: TrainedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    after = before.parent / "second place"
    shutil.move(before, after)
    registry = Registry(config_in(after))
    model = registry.resolve(alias="candidate")
    assert model.artifact.is_relative_to(after)
    assert len(registry.held_out("1") or []) == 1
    assert f"their place was {before}/artifacts and is {after}/artifacts now" in capsys.readouterr().err
    registry.register(trained)
    assert Registry(config_in(after)).resolve(version="2").artifact.is_relative_to(after)
    assert "their place was" not in capsys.readouterr().err
    assert not before.exists(), "a new version was written to the old place"
    # that of MLflow's own experiment "Default" has nothing of this product
    assert [place for place in locations(after / "mlflow.db") if "first" in place] == []


def test_a_copy_neither_reads_nor_writes_the_original(before: Path, trained: TrainedModel) -> None:
    copy = before.parent / "copy"
    shutil.copytree(before, copy)
    originals = {file for file in before.rglob("*") if file.is_file()}
    for file in originals:
        file.write_bytes(b"")
    registry = Registry(config_in(copy))
    assert registry.resolve(alias="candidate").artifact.is_relative_to(copy)
    assert len(registry.held_out("1")) == 1
    registry.register(trained)
    assert registry.resolve(version="2").artifact.is_relative_to(copy)
    assert [place for place in locations(copy / "mlflow.db") if "first" in place] == []
    assert {file for file in before.rglob("*") if file.is_file()} == originals
    assert sum(file.stat().st_size for file in originals) == 0


@pytest.mark.slow
def test_versions_whose_files_stayed_behind_are_found_there(before: Path, trained: TrainedModel) -> None:
    elsewhere = before.parent / "elsewhere"
    elsewhere.mkdir()
    registry = Registry(config_in(before, artifact_path=str(elsewhere)))
    assert registry.resolve(version="1").artifact.is_relative_to(before)
    registry.register(trained)
    for again in (registry, Registry(config_in(before))):
        assert again.resolve(version="1").artifact.is_relative_to(before / "artifacts")
        assert again.resolve(version="2").artifact.is_relative_to(elsewhere)


@pytest.mark.slow
def test_where_the_artifacts_disk_is_not_there_the_places_stay(before: Path) -> None:
    nowhere = before.parent / "not-mounted"
    assert Registry(config_in(before, artifact_path=str(nowhere))).resolve(version="1")
    assert not nowhere.exists()


@pytest.mark.parametrize("job", ["train_model", "compare_models"])
def test_a_deleted_experiment_is_refused_before_anything_is_fitted(
    job: str, empty_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = build(tmp_path / "sample")
    shutil.copy(empty_store, sample.folder / "mlflow.db")
    client = Registry(sample.config).connect()
    client.delete_experiment(client.create_experiment(sample.config.mlflow.experiment))
    sample.file.write_text(sample.file.read_text() + COMPARE)
    Catalog(sample.config.path("catalog")).tables.create("products")
    assert getattr(cli, job)(["--config", str(sample.file)]) == 2
    message = json.loads(capsys.readouterr().out.splitlines()[-1])["message"]
    assert message.startswith("mlflow.experiment: the experiment 'catalog-enrichment' was deleted")
    assert re.search(r"restore --experiment-id \d+\. Or set mlflow\.experiment", message)


@pytest.mark.slow
def test_only_the_artifacts_were_moved(before: Path) -> None:
    elsewhere = before.parent / "elsewhere"
    shutil.move(before / "artifacts", elsewhere)
    registry = Registry(config_in(before, artifact_path=str(elsewhere)))
    assert registry.resolve(alias="candidate").artifact.is_relative_to(elsewhere)


@pytest.mark.slow
def test_where_the_artifacts_are_nowhere_the_message_says_where_they_should_be(before: Path) -> None:
    shutil.rmtree(before / "artifacts")
    with pytest.raises(RegistryError, match="the files of models:/tiny/1 cannot be fetched"):
        Registry(config_in(before)).resolve(alias="candidate")
    assert any(str(before.name.split()[0]) in place for place in locations(before / "mlflow.db"))


@pytest.mark.slow
def test_places_that_only_begin_alike_stay(before: Path) -> None:
    store = before / "mlflow.db"
    with closing(sqlite3.connect(store)) as connection, connection:
        found = connection.execute("SELECT artifact_location FROM experiments WHERE name != 'Default'").fetchone()[0]
        other = f"{found}/7".replace("_place", "xplace")
        assert other != f"{found}/7"
        columns = "experiment_id, name, artifact_location, lifecycle_stage"
        for row in ((77, "o", f"{found}-old", "active"), (78, "p", other, "active")):
            connection.execute(f"INSERT INTO experiments ({columns}) VALUES (?, ?, ?, ?)", row)
    after = before.parent / "after"
    shutil.move(before, after)
    Registry(config_in(after)).resolve(alias="candidate")
    assert {f"{found}-old", other} <= set(locations(after / "mlflow.db"))


@pytest.mark.slow
def test_an_experiment_that_mlflow_run_has_just_made_gets_the_configs_place(
    empty_store: Path, trained: TrainedModel, tmp_path: Path
) -> None:
    """`mlflow run --experiment-name` in a new store makes it with a place in the current folder."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    config = config_in(tmp_path)
    client = Registry(config_in(tmp_path, experiment="another")).connect()
    client.create_experiment(config.mlflow.experiment, artifact_location=(tmp_path / "mlruns" / "1").as_uri())
    registry = Registry(config)
    registry.register(trained)
    assert registry.resolve(alias="candidate").artifact.is_relative_to(tmp_path / "artifacts")
    assert not (tmp_path / "mlruns").exists()


def test_other_databases_and_artifacts_on_a_server_are_left_alone(tmp_path: Path) -> None:
    def followed(name: str) -> Path | None:
        return local_store.follow_artifacts(tmp_path / name, tmp_path / "artifacts", "e", 1)

    (tmp_path / "artifacts").mkdir()
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
    with closing(sqlite3.connect(tmp_path / "server.db")) as connection, connection:
        for table, column in local_store.ARTIFACT_PLACES:
            connection.execute(f"CREATE TABLE {table} (name TEXT, {column} TEXT)")
        connection.execute("INSERT INTO experiments VALUES ('e', 's3://bucket/nosuch')")
    assert [followed(name) for name in ("nosuch.db", "empty.db", "other.db", "server.db")] == [None] * 4
