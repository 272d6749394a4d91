"""A local MLflow store and its artifacts in another place than where they were made."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from catalog_enrichment.errors import RegistryError
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import moved_store
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.trained_model import TrainedModel

from .tiny_version import config_in


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
            for table, column in moved_store._PLACES
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


@pytest.mark.slow
def test_a_copy_goes_on_with_the_originals_artifacts(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = before.parent / "copy"
    shutil.copytree(before, copy)
    assert Registry(config_in(copy)).resolve(alias="candidate").artifact.is_relative_to(before)
    assert "their place was" not in capsys.readouterr().err


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


def test_a_store_on_a_server_is_left_alone(tmp_path: Path) -> None:
    assert moved_store._folder("mlflow-artifacts:/1") is None
    assert moved_store._folder("s3://bucket/a") is None
    assert moved_store._folder("file:///a%20b/c") == Path("/a b/c")
    (tmp_path / "artifacts").mkdir()
    assert moved_store.follow(tmp_path / "nosuch.db", tmp_path / "artifacts", "e", 1) is None
    (tmp_path / "empty.db").touch()
    assert moved_store.follow(tmp_path / "empty.db", tmp_path / "artifacts", "e", 1) is None
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
    assert moved_store.follow(tmp_path / "other.db", tmp_path / "artifacts", "e", 1) is None
