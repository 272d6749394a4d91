"""The registered model: its versions, their tags, and its aliases, in MLflow's own registry and in Unity Catalog.

What the jobs keep with a version are *facts*: texts by name. MLflow's registry has a tag for each. Unity Catalog limits
tags in number, length and spelling, so that all facts of a version are packed into a few tags. The open-source Unity
Catalog server has neither tags nor aliases: facts stand behind a version's description, aliases behind the model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import failures
from catalog_enrichment.errors import ModelContractError, NoModelError, RegistryError
from catalog_enrichment.registry import local_store, packed_facts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from catalog_enrichment.registry.mlflow_run import LoggedModel

_NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
"""Codes of MLflow's errors where there is no such model or version."""
_EXISTS = {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}
_READY = "READY"
"""The status of a version whose files were uploaded."""
_RUN = "mlflow_run"
"""Tag with the id of the run that logged the version: Unity Catalog keeps it for some kinds of model alone."""
_FORBIDDEN = {"PERMISSION_DENIED", "UNAUTHENTICATED"}
_WRONG = re.compile(
    r"\w*DOES_NOT_EXIST|NOT_FOUND|INVALID_ARGUMENT|INVALID_PARAMETER_VALUE|FAILED_PRECONDITION|UNIMPLEMENTED|"
    "NOT_IMPLEMENTED|FEATURE_DISABLED|QUOTA_EXCEEDED"
)
"""Codes of answers that stay the same when the request is repeated; MLflow gives many of them the status 500."""
_MOST_NAMED = 20
"""Models that a message names."""


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
    ALIASES_ARE_ONE_TEXT = False
    """True where two processes that set aliases at once may overwrite each other's."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client, self.name = client, name

    def make(self) -> None:
        """Make the model if there is none: a user without the right to is told before the training."""
        from mlflow.exceptions import MlflowException

        with _asking(self, f"to make the model {self.name!r}", makes=True):
            try:
                self.client.create_registered_model(self.name)
            except MlflowException as problem:
                if problem.error_code not in _EXISTS:
                    raise

    def add(self, logged: LoggedModel, tags: Mapping[str, str], description: str) -> str:
        """Make a model that an MLflow run logged the next version; return its number."""
        with _asking(self, f"to make a version of model {self.name!r}", makes=True):
            return self._add(logged, {**tags, _RUN: logged.run_id}, description)

    def version(self, number: str) -> RegisteredVersion:
        """Return the version with this number."""
        if not number.isdecimal():
            raise NoModelError(f"{number!r} is no number of a version of model {self.name!r}")
        with _asking(self, f"version {number} of model {self.name!r}"):
            return self._read(self._get(number))

    def version_of(self, alias: str) -> RegisteredVersion:
        """Return the version that has the alias."""
        with _asking(self, f"alias {alias!r} of model {self.name!r}"):
            number = self._aliases().get(alias)
            if number is None:
                raise NoModelError(f"no alias {alias!r} of model {self.name!r}: {self.available()}")
            return self._read(self._get(number))

    def versions(self) -> list[RegisteredVersion]:
        """Return all versions whose files are there; none if there is no such model."""
        try:
            with _asking(self, f"versions of model {self.name!r}"):
                return [self._read(found) for found in self._pages() if found.status == _READY]
        except NoModelError:
            return []

    def aliases(self) -> dict[str, str]:
        """Return alias -> number of its version."""
        with _asking(self, f"model {self.name!r}"):
            return self._aliases()

    def set_alias(self, alias: str, number: str) -> None:
        """Give the alias to a version, whichever had it."""
        with _asking(self, f"alias {alias!r} for version {number} of model {self.name!r}"):
            self._set_alias(alias, number)

    def change_tags(self, number: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version, and delete those with None."""
        with _asking(self, f"version {number} of model {self.name!r}"):
            self._change_tags(number, tags)

    def available(self) -> str:
        """Name the versions and aliases of the model, or the models that there are in its place."""
        from mlflow.exceptions import MlflowException

        try:
            aliases = self._aliases() or "none"
            versions = sorted((str(found.version) for found in self._pages()), key=int)
            return f"it has versions {', '.join(versions) or 'none'} and aliases {aliases}"
        except MlflowException:
            advice = "Run train_model first, or check mlflow.model_name"
        try:
            models = sorted(model.name for model in self.client.search_registered_models())
        except MlflowException:  # not every user of Unity Catalog may list them
            return advice
        more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
        return f"the registry has {', '.join(models[:_MOST_NAMED]) or 'no models yet'}{more}. {advice}"

    def without_rights(self, wanted: str, problem: Exception) -> RegistryError | None:
        """Return the error that names the rights for ``wanted``; None where they are not what is missing."""
        if not self.RIGHTS or getattr(problem, "error_code", "") not in _FORBIDDEN:
            return None
        return RegistryError(f"the registry does not allow this job {wanted}: {problem}. {self.RIGHTS}")

    # what differs between registries; MLflow's errors pass through

    def _add(self, logged: LoggedModel, tags: dict[str, str], description: str) -> str:
        import mlflow

        version = str(mlflow.register_model(logged.model_uri, self.name, tags=tags).version)
        self.client.update_model_version(self.name, version, description)
        return version

    def _get(self, number: str) -> Any:
        found = self.client.get_model_version(self.name, number)
        if found.status != _READY:
            raise RegistryError(
                f"version {number} of model {self.name!r} has the status {found.status}: its files were not all "
                "uploaded. Use another version, or register a new one"
            )
        return found

    def _pages(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_model_versions(f"name='{self.name}'", page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _read(self, found: Any) -> RegisteredVersion:
        try:
            tags = self._tags(found)
        except ModelContractError as problem:
            raise ModelContractError(f"{self.name} version {found.version}: {problem}") from None
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


class _CatalogModel(RegisteredModel):
    """A registered model of a Unity Catalog, with a name of three levels. The catalog keeps the files itself."""

    RIGHTS = (
        "In Unity Catalog it needs USE CATALOG, USE SCHEMA and EXECUTE on the model; to register versions CREATE "
        "MODEL on the schema, and to promote to own the model"
    )

    def _folder(self, logged: LoggedModel) -> str:
        """Return the folder of a logged model in a local store; empty where a server keeps it."""
        place = self.client.get_logged_model(logged.model_uri.removeprefix("models:/")).artifact_location
        return str(local_store.folder_of(place)) if local_store.is_folder(place) else ""

    def _upload(self, source: str, run_id: str, description: str, tags: dict[str, str] | None = None) -> str:
        """Make a version of the files at ``source``: a folder, or the URI of a logged model.

        MLflow deletes what it has uploaded, as its own copy, unless ``source`` is the path of a folder: of a local
        store it makes no copy.
        """
        created = self.client.create_model_version(self.name, source, run_id, tags=tags, description=description)
        return str(created.version)


class UnityCatalogModel(_CatalogModel):
    """A registered model of Databricks' Unity Catalog."""

    def _add(self, logged: LoggedModel, tags: dict[str, str], description: str) -> str:
        stored = packed_facts.to_tags(tags, before={})
        if folder := self._folder(logged):
            return self._upload(folder, logged.run_id, description, stored)
        return super()._add(logged, stored, description)

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


class OpenCatalogModel(_CatalogModel):
    """A registered model of an open-source Unity Catalog server."""

    ALIASES_ARE_ONE_TEXT = True

    def _add(self, logged: LoggedModel, tags: dict[str, str], description: str) -> str:
        source = self._folder(logged) or logged.model_uri
        return self._upload(source, logged.run_id, packed_facts.to_text(description, tags))

    def _tags(self, found: Any) -> dict[str, str]:
        return packed_facts.of_text(found.description)

    def _aliases(self) -> dict[str, str]:
        return packed_facts.of_text(self.client.get_registered_model(self.name).description)

    def _set_alias(self, alias: str, number: str) -> None:
        text = self.client.get_registered_model(self.name).description
        aliases = packed_facts.of_text(text) | {alias: number}
        self.client.update_registered_model(self.name, packed_facts.to_text(packed_facts.without(text), aliases))

    def _change_tags(self, number: str, tags: Mapping[str, str | None]) -> None:
        text = self.client.get_model_version(self.name, number).description
        facts = _changed(packed_facts.of_text(text), tags)
        self.client.update_model_version(self.name, number, packed_facts.to_text(packed_facts.without(text), facts))


def _changed(facts: Mapping[str, str], tags: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**facts, **tags}.items() if value is not None}


@contextmanager
def _asking(model: RegisteredModel, wanted: str, makes: bool = False) -> Iterator[None]:
    """Turn MLflow's errors inside the block into this program's; ``wanted``: what is asked for, or to be made."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as problem:
        raise _translated(problem, model, wanted, makes) from problem


def _translated(problem: MlflowException, model: RegisteredModel, wanted: str, makes: bool) -> Exception:
    if problem.error_code in _NOT_FOUND and not makes:
        return NoModelError(f"no {wanted}: {model.available()}")
    if without_rights := model.without_rights(wanted, problem):
        return without_rights
    refused = RegistryError(f"the registry refuses {wanted}: {problem.message}")
    code = str(getattr(problem, "json", {}).get("error_code", problem.error_code))  # also one that MLflow does not know
    return refused if _WRONG.fullmatch(code) else failures.recognised(problem) or refused
