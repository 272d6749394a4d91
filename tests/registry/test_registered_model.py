"""Versions, tags and aliases in an open-source Unity Catalog, through MLflow's client, and in Databricks' limits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catalog_enrichment.config.schema import MlflowConfig
from catalog_enrichment.errors import GateRefused, ModelContractError, NoModelError, RegistryError, TemporaryFailure
from catalog_enrichment.records import stable_hash
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.registry.registered_model import RegisteredModel, UnityCatalogModel
from catalog_enrichment.registry.trained_model import TrainedModel

from ..unity_catalog import UnityCatalog, serving
from .tiny_version import config_in

NAME = "shop.models.tiny"


@pytest.fixture
def unity(tmp_path: Path) -> Iterator[UnityCatalog]:
    with serving(tmp_path / "unity") as catalog:
        yield catalog


@pytest.fixture
def registry(unity: UnityCatalog, empty_store: Path, tmp_path: Path) -> Registry:
    """Runs in sqlite, versions in Unity Catalog."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Registry(config_in(tmp_path, registry_uri=unity.uri, model_name=NAME))


@pytest.fixture
def of_sqlite(empty_store: Path, tmp_path: Path) -> Registry:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Registry(config_in(tmp_path))


def test_a_version_is_registered_promoted_and_resolved_in_unity_catalog(
    registry: Registry, unity: UnityCatalog, trained: TrainedModel
) -> None:
    first = registry.register(trained)
    second = registry.register(replace(trained, warnings=["color: the picture is hardly used"]))
    third = registry.register(trained)
    assert [first.version, second.version, third.version] == ["1", "2", "3"]
    assert [version.version for version in registry.versions()] == ["1", "2", "3"], "two pages"
    assert (registry.newest(), registry.champion()) == ("3", None)
    assert unity.versions[NAME][0]["status"] == "READY"

    Promotion(registry).promote("1", expected_current=None, details={"reasons": ["better"]})
    Promotion(registry).promote("3", expected_current="1")
    with pytest.raises(GateRefused, match="version 3 now"):
        Promotion(registry).promote("2", expected_current="1")
    assert registry.champion() == "3"
    assert Promotion(registry).go_back()["model_version"] == "1"
    assert [(event["action"], event["version"]) for event in Promotion(registry).history()] == [
        ("promoted", "1"), ("promoted", "3"), ("went_back", "1"),
    ]  # fmt: skip

    resolved = registry.resolve()
    assert (resolved.name, resolved.version, resolved.weights_hash) == (NAME, "1", trained.certificates[0].weights_hash)
    assert [known.threshold for known in resolved.certificates] == [0.9, None]
    assert registry.resolve(alias="candidate").version == "3"
    assert registry.held_out("2") == []
    assert registry.expires_at("1") == trained.certificates[0].expires_at
    described = unity.versions[NAME][0]["comment"]
    assert described.startswith(registry.store.model().client.get_run(first.run_id).data.tags["mlflow.note.content"])


def test_what_is_not_there_is_named_with_what_there_is(registry: Registry, trained: TrainedModel) -> None:
    with pytest.raises(NoModelError, match="the registry has no models yet"):
        registry.resolve()
    assert registry.versions() == []
    registry.register(trained)
    with pytest.raises(RegistryError, match=r"no alias 'champion' .* versions 1 and aliases {'candidate': '1'}"):
        registry.resolve()
    with pytest.raises(RegistryError, match=r"no version 7 of model 'shop.models.tiny'"):
        registry.resolve(version="7")


def test_a_changed_file_of_a_version_in_unity_catalog_is_noticed(
    registry: Registry, unity: UnityCatalog, trained: TrainedModel
) -> None:
    registry.register(trained)
    (weights,) = (unity.folder / NAME / "1").rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ModelContractError, match="does not match its checksum"):
        registry.resolve(version="1")


def test_without_rights_the_error_names_the_grants(registry: Registry, unity: UnityCatalog) -> None:
    registry.connect(create=True)
    unity.refuses = True
    with pytest.raises(RegistryError, match=r"does not have USE SCHEMA.* it needs USE CATALOG, USE SCHEMA and EXECUTE"):
        registry.champion()
    with pytest.raises(RegistryError, match="the registry does not allow this job version 1"):
        registry.resolve(version="1")


def test_a_registry_that_does_not_answer_may_work_later(tmp_path: Path, empty_store: Path) -> None:
    with serving(tmp_path) as gone:
        uri = gone.uri
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with pytest.raises(TemporaryFailure, match=r"no registry answers .* or set mlflow.registry_uri"):
        Registry(config_in(tmp_path, registry_uri=uri, model_name=NAME)).champion()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"registry_uri": "databricks-uc", "model_name": "models.tiny"}, "three levels in Unity Catalog"),
        ({"registry_uri": "databricks-uc://prod", "model_name": "a.b.c.d"}, "three levels"),
        ({"registry_uri": "uc:http://127.0.0.1:1", "model_name": "shop..tiny"}, "three levels"),
        ({"registry_uri": "databricks-uc", "model_name": "shop.my models.tiny"}, "three levels"),
        ({"registry_uri": "sqlite:///other.db"}, "runs and versions are in one file"),
        ({"registry_uri": "unity"}, "must be databricks-uc"),
        ({"tracking_uri": "databricks-uc", "model_name": "tiny"}, "three levels"),
    ],
)
def test_a_name_or_uri_that_the_registry_does_not_take_is_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MlflowConfig(**{"tracking_uri": "databricks", "model_name": "tiny"} | changes)


# --- the limits of Databricks' Unity Catalog


class Limited:
    """MLflow's client for Databricks' Unity Catalog with one version: its limits of tags, and what a search lacks."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.calls_left = 10**6

    def _found(self, **more: Any) -> SimpleNamespace:
        return SimpleNamespace(version="1", run_id="run", creation_timestamp=1_000, **more)

    def search_model_versions(self, name: str, page_token: str | None = None) -> Any:
        assert (name, page_token) == (f"name='{NAME}'", None)
        page = type("Page", (list,), {"token": None})
        return page([self._found(tags={})])

    def get_model_version(self, name: str, number: str) -> SimpleNamespace:
        assert (name, number) == (NAME, "1")
        return self._found(tags=dict(self.tags))

    def set_model_version_tag(self, name: str, number: str, key: str, value: str) -> None:
        assert (name, number) == (NAME, "1")
        self._one_call()
        assert not set(".,-=/:") & set(key + value), (key, value)
        assert 0 < len(value) <= 1000
        self.tags[key] = value
        assert len(self.tags) <= 50

    def delete_model_version_tag(self, name: str, number: str, key: str) -> None:
        assert (name, number) == (NAME, "1")
        self._one_call()
        del self.tags[key]

    def _one_call(self) -> None:
        if not self.calls_left:
            raise KeyboardInterrupt
        self.calls_left -= 1


def facts(number: int) -> dict[str, str]:
    """Facts that do not compress much, of several tags' length."""
    return {f"fact.{n}": "".join(stable_hash(number, n, part) for part in range(9)) for n in range(12)}


def test_facts_of_any_length_and_name_fit_the_tags_of_unity_catalog() -> None:
    client: Any = Limited()
    model = UnityCatalogModel(client, NAME)
    for number in range(3):
        model.change_tags("1", facts(number))
        assert model.version("1").tags == facts(number)
    model.change_tags("1", {"fact.0": None, "promotion.2026": "now"})
    expected = {name: value for name, value in facts(2).items() if name != "fact.0"} | {"promotion.2026": "now"}
    (version,) = model.versions()
    assert (version.tags, version.created_at) == (expected, datetime.fromtimestamp(1, UTC))
    with pytest.raises(ModelContractError, match="Unity Catalog's tags hold 24,000"):
        model.change_tags("1", {f"more {n}": "".join(stable_hash(n, part) for part in range(100)) for n in range(9)})
    assert model.version("1").tags == expected


def test_a_process_that_is_killed_leaves_the_old_facts_or_the_new() -> None:
    calls = 0
    seen = set()
    while True:
        client: Any = Limited()
        model = UnityCatalogModel(client, NAME)
        model.change_tags("1", facts(1))
        client.calls_left = calls
        try:
            model.change_tags("1", facts(2))
        except KeyboardInterrupt:
            found = model.version("1").tags
            seen.add(found == facts(2))
            assert found in (facts(1), facts(2))
            client.calls_left = 10**6
            model.change_tags("1", {"after": "wards"})
            assert model.version("1").tags == {**found, "after": "wards"}
            calls += 1
            continue
        break
    assert calls > 10
    assert seen == {False, True}


def test_mlflows_own_registry_has_a_tag_for_each_fact(of_sqlite: Registry, trained: TrainedModel) -> None:
    assert type(of_sqlite.store.model()) is RegisteredModel
    version = of_sqlite.register(trained)
    tags = of_sqlite.find(version=version.version).tags
    assert {"artifact_hash", "weights_hash", "evidence", "evidence.text_only"} <= set(tags)
    of_sqlite.store.model().change_tags("1", {"evidence": None, "note": "seen"})
    after = of_sqlite.find(version="1").tags
    assert ("evidence" in after, after["note"]) == (False, "seen")
