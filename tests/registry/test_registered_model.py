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
from catalog_enrichment.registry import packed_facts
from catalog_enrichment.registry.mlflow_run import LoggedModel
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.registry.registered_model import RegisteredModel, UnityCatalogModel
from catalog_enrichment.registry.trained_model import TrainedModel

from ..unity_catalog import UnityCatalog, serving
from .tiny_version import config_in

NAME = "shop.models.tiny"
NO_RIGHTS = (403, "PERMISSION_DENIED", "User does not have USE SCHEMA")


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
    client = registry.connect()
    assert described.startswith(client.get_run(first.run_id).data.tags["mlflow.note.content"])


def test_what_is_not_there_is_named_with_what_there_is(registry: Registry, trained: TrainedModel) -> None:
    with pytest.raises(NoModelError, match="the registry has no models yet"):
        registry.resolve()
    assert registry.versions() == []
    registry.register(trained)
    with pytest.raises(RegistryError, match=r"no alias 'champion' .* versions 1 and aliases {'candidate': '1'}"):
        registry.resolve()
    with pytest.raises(RegistryError, match=r"no version 7 of model 'shop.models.tiny'"):
        registry.resolve(version="7")
    with pytest.raises(NoModelError, match="'seven' is no number of a version"):
        registry.resolve(version="seven")


@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_alias_is_named_whatever_models_the_catalog_lists(
    listed: bool, registry: Registry, unity: UnityCatalog, trained: TrainedModel
) -> None:
    """A workspace has more models than a page of the list, and not every user may list them."""
    registry.register(trained)
    names = [f"model_{number}" for number in range(30)]
    unity.models |= {f"a.b.{name}": {"catalog_name": "a", "schema_name": "b", "name": name} for name in names}
    if not listed:
        unity.fault, unity.fault_at = NO_RIGHTS, r"GET \S+/models$"
    with pytest.raises(NoModelError, match=r"no alias 'spring' .* it has versions 1 and aliases {'candidate': '1'}"):
        registry.resolve(alias="spring")
    other = registry.store.model("shop.models.other")
    says = "the registry has a.b.model_0, .*and 11 more. Run train_model" if listed else "Run train_model"
    with pytest.raises(NoModelError, match=f"no version 1 of model 'shop.models.other': {says}"):
        other.version("1")


def test_the_files_that_the_run_logged_stay_where_they_are(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    """MLflow deletes what it has uploaded to a Unity Catalog, also where it is the folder of the store of the runs."""
    version = registry.register(trained)
    (logged,) = registry.connect().get_run(version.run_id).outputs.model_outputs
    assert list((tmp_path / "artifacts" / "models" / logged.model_id).rglob("MLmodel"))


def test_a_version_whose_upload_was_cut_off_is_left_out(
    registry: Registry, unity: UnityCatalog, trained: TrainedModel
) -> None:
    unity.fault, unity.fault_at = (400, "FAILED_PRECONDITION", "not now"), "finalize"
    with pytest.raises(RegistryError, match=f"refuses to make a version of model '{NAME}': .*not now"):
        registry.register(trained)
    unity.fault = None
    assert (registry.versions(), registry.newest(), registry.newest_trained()) == ([], None, None)
    with pytest.raises(RegistryError, match=r"version 1 .* has the status PENDING_REGISTRATION"):
        registry.resolve(version="1")
    assert registry.register(trained).version == "2"
    assert [version.version for version in registry.versions()] == ["2"]
    assert registry.resolve(alias="candidate").version == "2"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (NO_RIGHTS, "does not allow this job to make the model .*CREATE MODEL on the schema"),
        ((404, "NOT_FOUND", "Schema not found: models"), "refuses to make the model .*Schema not found: models"),
        ((404, "SCHEMA_DOES_NOT_EXIST", "no schema"), "refuses to make the model .*no schema"),
        ((400, "INVALID_ARGUMENT", "bad name"), "refuses to make the model .*bad name"),
    ],
)
def test_a_registry_that_takes_no_model_is_found_before_the_training(
    fault: tuple[int, str, str], says: str, registry: Registry, unity: UnityCatalog
) -> None:
    unity.fault, unity.fault_at = fault, "POST"
    with pytest.raises(RegistryError, match=says):
        registry.training_run("tiny", "train_model")
    assert registry.connect().search_runs(["0", "1"]) == []


def test_a_candidate_is_registered_when_no_promotion_sets_an_alias(
    registry: Registry, unity: UnityCatalog, trained: TrainedModel, tmp_path: Path
) -> None:
    """All aliases of a model are one text in an open-source catalog: of two changes at once one would be lost."""
    other = Registry(config_in(tmp_path, registry_uri=unity.uri, model_name=NAME, timeout_seconds=1))
    with registry.store.promoting(), pytest.raises(GateRefused, match="another process is promoting"):
        other.register(trained)
    assert registry.store.model().aliases() == {}
    assert list((tmp_path / "catalog").glob("_promotion-*.lock")), "where jobs with other stores of runs find it, too"


def test_what_somebody_wrote_into_the_comment_is_told_from_what_they_broke(
    registry: Registry, unity: UnityCatalog, trained: TrainedModel
) -> None:
    registry.register(trained)
    before = registry.find(version="1").tags
    unity.versions[NAME][0]["comment"] += "\n\nThe version of spring."
    assert registry.find(version="1").tags == before
    registry.store.model().change_tags("1", {"note": "seen"})
    assert registry.find(version="1").tags == {**before, "note": "seen"}
    assert "The version of spring." in unity.versions[NAME][0]["comment"]
    comment = unity.versions[NAME][0]["comment"]
    unity.versions[NAME][0]["comment"] = comment.replace("<!-- catalog-enrichment ", "<!-- catalog-enrichment X")
    with pytest.raises(ModelContractError, match=f"{NAME} version 1: the comment behind its description cannot be"):
        registry.versions()


def test_facts_behind_a_description_are_the_last_comment_and_fit_a_servers_column() -> None:
    text = packed_facts.to_text("<!-- catalog-enrichment PCOA --> of another version", facts(1))
    assert packed_facts.of_text(text) == facts(1)
    with pytest.raises(ModelContractError, match="an open-source Unity Catalog holds 65,535"):
        packed_facts.to_text("", {f"more {n}": "".join(stable_hash(n, part) for part in range(100)) for n in range(12)})


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
    unity.fault = NO_RIGHTS
    with pytest.raises(RegistryError, match=r"does not have USE SCHEMA.* it needs USE CATALOG, USE SCHEMA and EXECUTE"):
        registry.champion()
    with pytest.raises(RegistryError, match="the registry does not allow this job version 1"):
        registry.resolve(version="1")


def test_an_alias_that_this_job_may_not_set_is_named_and_the_champion_stays(
    registry: Registry, unity: UnityCatalog, trained: TrainedModel
) -> None:
    for _ in range(2):
        registry.register(trained)
    Promotion(registry).promote("1", expected_current=None)
    before = (registry.champion(), Promotion(registry).history())
    unity.fault, unity.fault_at = NO_RIGHTS, rf"PATCH \S+/{NAME}$"
    with pytest.raises(
        RegistryError, match=r"job alias 'champion' for version 2 of model .* to promote to own the model"
    ):
        Promotion(registry).promote("2", expected_current="1")
    unity.fault = None
    assert (registry.champion(), Promotion(registry).history()) == before


def test_without_rights_on_the_files_the_error_names_the_grants(
    registry: Registry, unity: UnityCatalog, trained: TrainedModel
) -> None:
    registry.register(trained)
    version = registry.find(version="1")
    unity.fault = NO_RIGHTS
    with pytest.raises(RegistryError, match=rf"this job the files of models:/{NAME}/1: .*EXECUTE on the model"):
        registry.store.download(version)


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
        ({"registry_uri": "databricks_uc", "model_name": "a.b.c"}, "must be databricks-uc"),
        ({"registry_uri": "databricks-uc:prod", "model_name": "a.b.c"}, "must be databricks-uc"),
        ({"registry_uri": ""}, "mlflow.registry_uri is empty"),
        ({"tracking_uri": "databricks-uc"}, "Unity Catalog keeps no runs"),
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

    def get_logged_model(self, model_id: str) -> SimpleNamespace:
        assert model_id == "m-1"
        return SimpleNamespace(artifact_location=Path(__file__).parent.as_uri())

    def create_model_version(
        self, name: str, source: str, run_id: str, tags: dict[str, str], description: str
    ) -> SimpleNamespace:
        """The path of a folder is given, which MLflow does not delete."""
        assert (name, source, run_id, description) == (NAME, str(Path(__file__).parent), "run-7", "the best")
        self.tags = tags
        return self._found()

    def _found(self, **more: Any) -> SimpleNamespace:
        return SimpleNamespace(version="1", run_id="", creation_timestamp=1_000, status="READY", **more)

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


def test_a_version_of_unity_catalog_knows_its_run_though_the_catalog_does_not() -> None:
    client: Any = Limited()
    model = UnityCatalogModel(client, NAME)
    assert model.add(LoggedModel("run-7", "models:/m-1"), {"note": "x"}, "the best") == "1"
    assert (model.version("1").run_id, model.version("1").tags["note"]) == ("run-7", "x")


def test_tags_that_somebody_changed_are_named() -> None:
    client: Any = Limited()
    model = UnityCatalogModel(client, NAME)
    model.change_tags("1", facts(1))
    client.tags = {key: value for key, value in client.tags.items() if not key.endswith("_1")}
    with pytest.raises(ModelContractError, match=rf"{NAME} version 1: its tags catalog_enrichment\* cannot be read"):
        model.version("1")
    client.tags["catalog_enrichment"] = "mine"
    with pytest.raises(ModelContractError, match="cannot be read: somebody changed it"):
        model.version("1")


def test_mlflows_own_registry_has_a_tag_for_each_fact(of_sqlite: Registry, trained: TrainedModel) -> None:
    assert type(of_sqlite.store.model()) is RegisteredModel
    version = of_sqlite.register(trained)
    tags = of_sqlite.find(version=version.version).tags
    assert {"artifact_hash", "weights_hash", "evidence", "evidence.text_only"} <= set(tags)
    of_sqlite.store.model().change_tags("1", {"evidence": None, "note": "seen"})
    after = of_sqlite.find(version="1").tags
    assert ("evidence" in after, after["note"]) == (False, "seen")
