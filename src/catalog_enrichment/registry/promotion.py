"""Moves of the champion alias, one at a time, and their history.

MLflow has no compare-and-set for an alias. So every move holds a lock, compares the champion with the one that the
caller expects, and reads the alias again afterwards. **All processes that promote must share the lock**: it is a file
beside a sqlite store, else in the catalog's folder, or a lease in the catalog's object store. It does not cover an
alias moved in MLflow's interface.

Every move leaves an event, as JSON in a tag of the version that became the champion.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.schema import MlflowConfig
from catalog_enrichment.errors import GateRefused, RegistryError
from catalog_enrichment.records import strictly_later
from catalog_enrichment.registry import mlflow_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

NO_CHAMPION = "none"
"""Version of the champion in arguments and messages where there is none."""
_PREVIOUS, _PROMOTED_AT, _WITHDRAWN_AT = "previous_champion", "promoted_at", "withdrawn_at"
_EVENT = "promotion."
"""Version tags; the last is the begin of one tag per event, followed by its time."""
PROMOTED, WENT_BACK = "promoted", "went_back"
"""Actions of events."""


class ChampionAlias:
    """The champion alias of the registered model that the config names."""

    def __init__(self, store: mlflow_store.Store, settings: MlflowConfig) -> None:
        self._store = store
        self._alias = settings.champion_alias
        self._model = settings.model_name

    def current(self) -> str | None:
        """The champion's version; None if there is none. Raises RegistryError if the model does not exist."""
        return mlflow_store.aliases(self._client(), self._model).get(self._alias)

    def promote(self, version: str, expected_current: str | None, details: Mapping[str, Any] | None = None) -> None:
        """Make ``version`` the champion if ``expected_current`` (None: no version) is the champion now.

        Promoting the champion again changes nothing. ``details`` are kept with the event. Raises GateRefused if another
        version is the champion or another process is promoting.
        """
        with self._store.promoting() as assert_lease:
            current = self.current()
            if current != expected_current:
                raise GateRefused(
                    f"the champion of {self._model} is version {current or NO_CHAMPION} now, expected was "
                    f"{expected_current or NO_CHAMPION}: it was promoted meanwhile. Compare with it and promote again."
                )
            if current != version:
                self._version(version)
                now = self._now()
                # tags before the alias: a killed promotion leaves no champion without its predecessor
                self._tag(version, {_PREVIOUS: current or "", _PROMOTED_AT: now})
                assert_lease()
                self._move(version)
                self._record(version, {"at": now, "action": PROMOTED, "champion_before": current, **(details or {})})

    def go_back(self) -> tuple[str, str]:
        """Make the champion's predecessor the champion; returns the versions (withdrawn, restored).

        A second call restores the predecessor's predecessor. Raises RegistryError if there is no champion or it has no
        predecessor.
        """
        with self._store.promoting() as assert_lease:
            champion = mlflow_store.find_version(self._client(), self._model, alias=self._alias)
            previous = champion.tags.get(_PREVIOUS)
            if not previous:
                raise RegistryError(f"{self._model} version {champion.version} replaced no champion: cannot go back")
            self._version(previous)
            now = self._now()
            self._tag(champion.version, {_WITHDRAWN_AT: now})
            assert_lease()
            self._move(previous)
            withdrawn = str(champion.version)
            self._record(previous, {"at": now, "action": WENT_BACK, "champion_before": withdrawn})
        return withdrawn, previous

    def _now(self) -> str:
        """Later than every promotion and withdrawal so far: their order decides who was champion."""
        tags = [version.tags for version in mlflow_store.all_versions(self._client(), self._model)]
        times = [of_one[name] for of_one in tags for name in (_PROMOTED_AT, _WITHDRAWN_AT) if name in of_one]
        newest = max((datetime.fromisoformat(time) for time in times), default=None)
        return strictly_later(datetime.now(UTC), newest).isoformat()

    def _move(self, version: str) -> None:
        self._client().set_registered_model_alias(self._model, self._alias, version)
        if (champion := self.current()) != version:
            raise GateRefused(
                f"the champion of {self._model} was set to {version}, but is {champion}: the alias was moved meanwhile"
            )

    def _record(self, version: str, event: Mapping[str, Any]) -> None:
        key = _EVENT + datetime.fromisoformat(event["at"]).strftime("%Y%m%dT%H%M%S.%fZ")
        self._tag(version, {key: json.dumps({"by": _user(), **event})})

    def _tag(self, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client().set_model_version_tag(self._model, version, key, value)

    def _version(self, version: str) -> Any:
        return mlflow_store.find_version(self._client(), self._model, version=version)

    def _client(self) -> MlflowClient:
        return self._store.client(create=False)


def history(versions: Sequence[Any]) -> list[dict[str, Any]]:
    """The events of MLflow's ``versions``, oldest first. Keys: at, action, version, champion_before, by, and what the
    gate found. Of a promotion that left no event (release 0.1.0, or a job killed) the first four are known."""
    events: list[dict[str, Any]] = []
    for version in versions:
        of_version = [json.loads(value) for key, value in version.tags.items() if key.startswith(_EVENT)]
        promoted_at = version.tags.get(_PROMOTED_AT)
        if promoted_at and promoted_at not in {event["at"] for event in of_version}:
            before = version.tags.get(_PREVIOUS) or None
            of_version.append({"at": promoted_at, "action": PROMOTED, "champion_before": before})
        events += [{"version": str(version.version), **event} for event in of_version]
    return sorted(events, key=lambda event: datetime.fromisoformat(event["at"]))


def former_champions(versions: Sequence[Any]) -> list[str]:
    """The versions that were promoted at some time, less those that were withdrawn by going back and not promoted
    since."""
    return [
        str(version.version)
        for version in versions
        if (promoted := version.tags.get(_PROMOTED_AT))
        and not (
            (withdrawn := version.tags.get(_WITHDRAWN_AT))
            and datetime.fromisoformat(withdrawn) > datetime.fromisoformat(promoted)
        )
    ]


def describe(event: Mapping[str, Any]) -> str:
    """An event of :func:`history` in one line."""
    verb = "restored in place of" if event["action"] == WENT_BACK else "promoted after"
    line = f"{event['at'][:16]}  version {event['version']} {verb} {event['champion_before'] or NO_CHAMPION}"
    line += f", by {event.get('by') or 'unknown'}"
    if event.get("reasons"):
        line += f": {event.get('verdict', '')}; " + "; ".join(event["reasons"])
    return line + (f"; override: {event['override']}" if event.get("override") else "")


def _user() -> str:
    """Name of the operating system's user; containers may have none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
