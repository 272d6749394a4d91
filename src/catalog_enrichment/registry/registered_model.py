"""The registered model: its versions, their tags, and its aliases, in MLflow's own registry and in Unity Catalog.

What the jobs keep with a version are *facts*: texts by name. MLflow's registry has a tag for each. Unity Catalog limits
tags in number, length and spelling, so that all facts of a version are packed into a few tags. The open-source Unity
Catalog server has neither tags nor aliases: facts stand behind a version's description, aliases behind the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import failures
from catalog_enrichment.errors import NoModelError, RegistryError
from catalog_enrichment.registry import packed_facts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

_NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}
"""Codes of MLflow's errors where there is no such model, version or alias; the second for an alias."""
_RUN = "mlflow_run"
"""Tag with the id of the run that logged the version: Unity Catalog keeps it for some kinds of model alone."""
_FORBIDDEN = {"PERMISSION_DENIED", "UNAUTHENTICATED"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredVersion:
    """A version of a registered model."""

    name: str
    version: str
    """Its number."""
    run_id: str
    """The MLflow run that logged it."""
    created_at: datetime
    """UTC."""
    tags: Mapping[str, str]
    """What the jobs keep with it."""


class RegisteredModel:
    """A registered model of an MLflow server or sqlite store.

    Every method raises NoModelError where there is no such model, version or alias, and says which there are;
    RegistryError where the registry refuses, TemporaryFailure where it does not answer.
    """

    RIGHTS = ""
    """The rights that the jobs need, where the registry has some."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client, self.name = client, name

    def add(self, model_uri: str, run_id: str, tags: Mapping[str, str], description: str) -> str:
        """Make a model that the MLflow run logged the next version; return its number."""
        tags = {**tags, _RUN: run_id}
        with _asking(self, f"a new version of {self.name!r}"):
            version = self._add(model_uri, self._stored(tags))
            self._describe(version, description, tags)
        return version

    def version(self, number: str) -> RegisteredVersion:
        """Return the version with this number."""
        with _asking(self, f"version {number} of model {self.name!r}"):
            return self._read(self.client.get_model_version(self.name, number))

    def version_of(self, alias: str) -> RegisteredVersion:
        """Return the version that has the alias."""
        with _asking(self, f"alias {alias!r} of model {self.name!r}"):
            return self._version_of(alias)

    def versions(self) -> list[RegisteredVersion]:
        """Return all versions; none if there is no such model."""
        try:
            with _asking(self, f"versions of model {self.name!r}"):
                return [self._read(found) for found in self._pages()]
        except NoModelError:
            return []

    def aliases(self) -> dict[str, str]:
        """Return alias -> number of its version."""
        with _asking(self, f"model {self.name!r}"):
            return self._aliases()

    def set_alias(self, alias: str, number: str) -> None:
        """Give the alias to a version, whichever had it."""
        with _asking(self, f"version {number} of model {self.name!r}"):
            self._set_alias(alias, number)

    def change_tags(self, number: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version, and delete those with None."""
        with _asking(self, f"version {number} of model {self.name!r}"):
            self._change_tags(number, tags)

    def available(self) -> str:
        """Name the versions and aliases of the model, or the models that there are in its place."""
        models = sorted(model.name for model in self.client.search_registered_models())
        if self.name not in models:
            known = ", ".join(models) or "no models yet"
            return f"the registry has {known}. Run train_model first, or check model_name"
        versions = sorted((str(found.version) for found in self._pages()), key=int)
        return f"it has versions {', '.join(versions) or 'none'} and aliases {self._aliases() or 'none'}"

    # what differs between registries; MLflow's errors pass through

    def _stored(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return the tags of a new version."""
        return dict(tags)

    def _add(self, model_uri: str, stored: dict[str, str]) -> str:
        import mlflow

        return str(mlflow.register_model(model_uri, self.name, tags=stored or None).version)

    def _describe(self, number: str, description: str, tags: Mapping[str, str]) -> None:
        del tags  # they are tags already
        self.client.update_model_version(self.name, number, description)

    def _version_of(self, alias: str) -> RegisteredVersion:
        return self._read(self.client.get_model_version_by_alias(self.name, alias))

    def _pages(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_model_versions(f"name='{self.name}'", page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _read(self, found: Any) -> RegisteredVersion:
        tags = self._tags(found)
        return RegisteredVersion(
            name=self.name,
            version=str(found.version),
            run_id=str(found.run_id or tags.get(_RUN, "")),
            created_at=datetime.fromtimestamp((found.creation_timestamp or 0) / 1000, UTC),
            tags=tags,
        )

    def _tags(self, found: Any) -> dict[str, str]:
        """Return the tags of MLflow's version ``found``."""
        return dict(found.tags or {})

    def _aliases(self) -> dict[str, str]:
        return {alias: str(version) for alias, version in self.client.get_registered_model(self.name).aliases.items()}

    def _set_alias(self, alias: str, number: str) -> None:
        self.client.set_registered_model_alias(self.name, alias, number)

    def _change_tags(self, number: str, tags: Mapping[str, str | None]) -> None:
        for key, value in tags.items():
            if value is None:
                self.client.delete_model_version_tag(self.name, number, key)
            else:
                self.client.set_model_version_tag(self.name, number, key, value)


class UnityCatalogModel(RegisteredModel):
    """A registered model of Databricks' Unity Catalog, with a name of three levels."""

    RIGHTS = (
        "In Unity Catalog it needs USE CATALOG, USE SCHEMA and EXECUTE on the model; to register versions CREATE "
        "MODEL on the schema, and to promote to own the model"
    )

    def _stored(self, tags: Mapping[str, str]) -> dict[str, str]:
        return packed_facts.to_tags(tags, before={})

    def _pages(self) -> Iterator[Any]:
        for found in super()._pages():  # a search gives no tags
            yield self.client.get_model_version(self.name, str(found.version))

    def _tags(self, found: Any) -> dict[str, str]:
        return packed_facts.of_tags(found.tags or {})

    def _change_tags(self, number: str, tags: Mapping[str, str | None]) -> None:
        before = dict(self.client.get_model_version(self.name, number).tags or {})
        facts = _changed(packed_facts.of_tags(before), tags)
        stored = packed_facts.to_tags(facts, before=before)
        super()._change_tags(number, stored)
        super()._change_tags(number, dict.fromkeys(packed_facts.outdated(before, stored)))


class OpenCatalogModel(RegisteredModel):
    """A registered model of an open-source Unity Catalog server, with a name of three levels."""

    RIGHTS = UnityCatalogModel.RIGHTS

    def _stored(self, tags: Mapping[str, str]) -> dict[str, str]:
        del tags  # they are written behind the description
        return {}

    def _describe(self, number: str, description: str, tags: Mapping[str, str]) -> None:
        self.client.update_model_version(self.name, number, packed_facts.to_text(description, tags))

    def _tags(self, found: Any) -> dict[str, str]:
        return packed_facts.of_text(found.description)

    def _version_of(self, alias: str) -> RegisteredVersion:
        number = self._aliases().get(alias)
        if number is None:
            raise NoModelError(f"no alias {alias!r} of model {self.name!r}: {self.available()}")
        return self._read(self.client.get_model_version(self.name, number))

    def _aliases(self) -> dict[str, str]:
        return packed_facts.of_text(self.client.get_registered_model(self.name).description)

    def _set_alias(self, alias: str, number: str) -> None:
        text = self.client.get_registered_model(self.name).description
        aliases = packed_facts.of_text(text) | {alias: number}
        self.client.update_registered_model(self.name, packed_facts.to_text(packed_facts.without(text), aliases))

    def _change_tags(self, number: str, tags: Mapping[str, str | None]) -> None:
        text = self.client.get_model_version(self.name, number).description
        facts = _changed(packed_facts.of_text(text), tags)
        self._describe(number, packed_facts.without(text), facts)


def _changed(facts: Mapping[str, str], tags: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**facts, **tags}.items() if value is not None}


@contextmanager
def _asking(model: RegisteredModel, wanted: str) -> Iterator[None]:
    """Turn MLflow's errors inside the block into this program's; ``wanted``: what is asked for."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as problem:
        raise _translated(problem, model, wanted) from problem


def _translated(problem: MlflowException, model: RegisteredModel, wanted: str) -> Exception:
    if problem.error_code in _NOT_FOUND:
        return NoModelError(f"no {wanted}: {model.available()}")
    if model.RIGHTS and problem.error_code in _FORBIDDEN:
        return RegistryError(f"the registry does not allow this job {wanted}: {problem.message}. {model.RIGHTS}")
    unusable = RegistryError(f"the MLflow registry cannot be asked for {wanted}: {problem}")
    return failures.recognised(problem) or unusable
