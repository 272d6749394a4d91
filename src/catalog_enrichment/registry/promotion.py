"""Moves of the champion alias, one at a time.

MLflow has no compare-and-set for an alias. So every move holds a file lock, compares the champion with the one that the
caller expects, and reads the alias again afterwards. **All processes that promote must share the lock file**: it is
beside a sqlite store, else in the catalog's folder. The lock does not cover an alias moved in MLflow's interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.schema import MlflowConfig
from catalog_enrichment.errors import GateRefused, RegistryError
from catalog_enrichment.registry import mlflow_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

NO_CHAMPION = "none"
"""Version of the champion in arguments and messages where there is none."""
_PREVIOUS, _PROMOTED_AT, _WITHDRAWN_AT = "previous_champion", "promoted_at", "withdrawn_at"
"""Version tags."""


class ChampionAlias:
    """The champion alias of the registered model that the config names."""

    def __init__(self, store: mlflow_store.Store, settings: MlflowConfig) -> None:
        self._store = store
        self._alias = settings.champion_alias
        self._model = settings.model_name
        self._timeout_seconds = settings.timeout_seconds

    def current(self) -> str | None:
        """The champion's version; None if there is none. Raises RegistryError if the model does not exist."""
        return mlflow_store.aliases(self._client(), self._model).get(self._alias)

    def promote(self, version: str, expected_current: str | None) -> None:
        """Make ``version`` the champion if ``expected_current`` (None: no version) is the champion now.

        Promoting the champion again changes nothing. Raises GateRefused if another version is the champion or another
        process is promoting.
        """
        with self._lock():
            current = self.current()
            if current != expected_current:
                raise GateRefused(
                    f"the champion of {self._model} is version {current or NO_CHAMPION} now, expected was "
                    f"{expected_current or NO_CHAMPION}: it was promoted meanwhile. Compare with it and promote again."
                )
            if current != version:
                self._version(version)
                # tags before the alias: a killed promotion leaves no champion without its predecessor
                self._tag(version, {_PREVIOUS: current or "", _PROMOTED_AT: datetime.now(UTC).isoformat()})
                self._move(version)

    def go_back(self) -> tuple[str, str]:
        """Make the champion's predecessor the champion; returns the versions (withdrawn, restored).

        A second call restores the predecessor's predecessor. Raises RegistryError if there is no champion or it has no
        predecessor.
        """
        with self._lock():
            champion = mlflow_store.find_version(self._client(), self._model, alias=self._alias)
            previous = champion.tags.get(_PREVIOUS)
            if not previous:
                raise RegistryError(f"{self._model} version {champion.version} replaced no champion: cannot go back")
            self._version(previous)
            self._tag(champion.version, {_WITHDRAWN_AT: datetime.now(UTC).isoformat()})
            self._move(previous)
        return str(champion.version), previous

    @contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        path = self._store.lock_folder() / f".{self._model}.promotion.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=self._timeout_seconds):
                yield
        except Timeout:
            raise GateRefused(f"another process is promoting {self._model} ({path}); try again") from None

    def _move(self, version: str) -> None:
        self._client().set_registered_model_alias(self._model, self._alias, version)
        if (champion := self.current()) != version:
            raise GateRefused(
                f"the champion of {self._model} was set to {version}, but is {champion}: the alias was moved meanwhile"
            )

    def _tag(self, version: str, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self._client().set_model_version_tag(self._model, version, key, value)

    def _version(self, version: str) -> Any:
        return mlflow_store.find_version(self._client(), self._model, version=version)

    def _client(self) -> MlflowClient:
        return self._store.client(create=False)
