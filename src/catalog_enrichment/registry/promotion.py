"""How a version is promoted: through the gate to the champion alias, back from it, and the history of its moves.

MLflow has no compare-and-set for an alias. So every move holds a lock, compares the champion with the version that the
caller expects, and reads the alias again afterwards. **All processes that promote must share the lock**: it is beside a
sqlite store, else in the catalog's folder or object store. It does not cover an alias moved in MLflow's interface.

Every move leaves an event, as JSON in a tag of the version that became the champion. Before the move it is that
version's tag :data:`_MOVING`, which counts only if the alias did move: a process that is killed or loses the lock
before it leaves no version that seems to have been champion, and what one that is killed after it has not written yet
the next move writes.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from catalog_enrichment import dictionary, resources
from catalog_enrichment.catalog import value_names
from catalog_enrichment.catalog.locks import AssertHeld
from catalog_enrichment.catalog.value_names import Followed
from catalog_enrichment.errors import ConfigError, GateRefused, ModelContractError, RegistryError
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.records import strictly_later
from catalog_enrichment.registry import label_check, promotion_gate
from catalog_enrichment.registry.gate_evidence import Evidence, References
from catalog_enrichment.registry.model_registry import CANDIDATE, CHAMPION, Registry, ResolvedModel
from catalog_enrichment.registry.promotion_gate import Case, EarlyGate, GateResult, Policy, Verdict
from catalog_enrichment.registry.registered_model import RegisteredVersion
from catalog_enrichment.web.pages import when

NO_CHAMPION = "none"
"""Version of the champion in arguments and messages where there is none."""
_PREVIOUS, _PROMOTED_AT, _DEMOTED_AT = "previous_champion", "promoted_at", "demoted_at"
_MOVING, _EVENT = "moving_champion", "promotion."
"""Version tags; the last is the prefix of one tag per event, followed by its time."""
PROMOTED, WENT_BACK = "promoted", "went_back"
"""Actions of events."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionRequest:
    version: str | None = None
    """The version to promote; None for the candidate."""
    expected_current: str | None = None
    """The version that must be the champion now (NO_CHAMPION: there must be none); None: the version that the gate
    compared with."""
    dry_run: bool = False
    override: str | None = None
    """Why to promote although the gate is inconclusive; recorded with the version. What the policy refuses cannot be
    overridden."""

    def __post_init__(self) -> None:
        if self.override is not None and not self.override.strip():
            raise ConfigError("--override needs a reason, which is recorded with the version")


class Promotion:
    """The gate and the champion alias of the registered model of ``registry``.

    ``followed``: what the dictionary means in the catalog; without it no value was ever renamed.
    """

    def __init__(self, registry: Registry, followed: Followed | None = None) -> None:
        self._registry, self._config = registry, registry.config
        self._followed = followed

    # the gate

    def through_gate(self, request: PromotionRequest) -> dict[str, Any]:
        """Promote a version if the policy allows it; return the job's summary.

        Raises GateRefused with every reason if the policy refuses it, or if the test products decide nothing and the
        request does not override that; and if the dictionary has changed so that the version cannot decide an
        attribute.
        """
        policy, registry, words = self._policy(), self._registry, self._words()
        candidate = registry.resolve(version=request.version, alias=CANDIDATE)
        checked = label_check.check_labels(candidate.heads, words.dictionary, words.names, candidate.certificates)
        if stopped := checked.stopped:
            lines = "\n  - ".join(f"{name}: {why}" for name, why in stopped.items())
            raise GateRefused(f"{registry.name} version {candidate.version} stays a candidate:\n  - {lines}")
        current = registry.champion()
        result = promotion_gate.gate(self._case(candidate, current, policy), policy)
        inconclusive = result.verdict is Verdict.INCONCLUSIVE
        details = {
            "verdict": result.verdict.value,
            "reasons": list(result.reasons),
            "comparisons": list(result.comparisons),
            "override": request.override if inconclusive else None,
        }
        summary = {
            "model_name": registry.name,
            "model_version": candidate.version,
            "champion_before": current,
            "passed": result.verdict is Verdict.PASSED,
            **details,
        }
        if request.dry_run:
            return {"status": "dry_run", **summary}
        if result.verdict is Verdict.REFUSED or (inconclusive and not request.override):
            raise GateRefused(_refusal(registry.name, candidate.version, result), summary)
        expected = current if request.expected_current is None else request.expected_current
        self.promote(candidate.version, None if expected == NO_CHAMPION else expected, details)
        return {"status": "unchanged" if current == candidate.version else "promoted", **summary}

    def early_gate(self) -> EarlyGate:
        """Return the gate for a model that is not registered yet, with the policy and the champions as they are now."""
        self._registry.connect(create=True)
        policy, registry = self._policy(), self._registry
        current = registry.champion() if registry.versions() else None
        champion = self._recorded(current, registry.find(version=current).tags) if current else None
        if champion is None:
            return EarlyGate(policy, None, {})
        return EarlyGate(policy, self._references(champion), self._values(registry.labels(champion.version)))

    def _case(self, candidate: ResolvedModel, current: str | None, policy: Policy) -> Case:
        """Collect what the gate has to know; the champion's files are fetched for its labels."""
        evidence, rule = self._evidence(candidate.version), self._config.precision
        case = Case(candidate=evidence, champion=None, target=rule.target, delta=rule.delta, now=datetime.now(UTC))
        if current is None:
            return case
        champion = self._evidence(current)
        if current == candidate.version:
            return replace(case, champion=champion)
        values = self._values({name: head.labels for name, head in candidate.heads.items()})
        references, own = self._references(champion, evidence.version), self._held_out(candidate.version)
        comparisons = [
            comparison
            for path in sorted(champion.certified & evidence.certified)
            for comparison in references.comparisons(path, own, policy.confidence, evidence.paths[path])
        ]
        differences = promotion_gate.label_differences(self._values(self._registry.labels(current)), values)
        return replace(case, champion=champion, comparisons=comparisons, label_differences=differences)

    def _references(self, champion: Evidence, candidate: str = "") -> References:
        """Return what the gate compares a candidate with; ``candidate``: its version, empty before it is registered."""
        versions = {version.version: version for version in self._versions()}
        former = [
            evidence
            for name in former_champions(list(versions.values()))
            if name not in {candidate, champion.version}
            and (evidence := self._recorded(name, versions[name].tags)) is not None
        ]
        decisions = {evidence.version: self._held_out(evidence.version) for evidence in (champion, *former)}
        return References(champion, former, decisions)

    def _evidence(self, version: str) -> Evidence:
        """Return the gate's evidence, as recorded when the version was registered."""
        evidence = self._recorded(version, self._registry.find(version=version).tags)
        if evidence is None:
            name = self._registry.name
            raise ModelContractError(f"{name} version {version} was not registered by train_model: no evidence")
        return evidence

    # what versions recorded, by the names that values have now, of attributes that the dictionary has now

    def _recorded(self, version: str, tags: Mapping[str, str]) -> Evidence | None:
        evidence = Evidence.from_tags(version, tags)
        return evidence and evidence.of_attributes(self._words().dictionary.enabled)

    def _values(self, labels: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return label_check.values_by_name(labels, self._words().dictionary, self._words().names)

    def _held_out(self, version: str) -> list[HeldOutDecision]:
        """Return what the version would write on its test fold today: no value that the dictionary does not list.

        Else no candidate could be as good as a champion that knows a value which was removed since.
        """
        words, names = self._words().dictionary, self._words().names

        def now(attribute: str, values: Sequence[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(names.now(attribute, value) for value in values))

        return [
            replace(
                row,
                true_values=now(row.attribute, row.true_values),
                written_values=tuple(
                    value
                    for value in now(row.attribute, row.written_values)
                    if row.attribute not in words or words[row.attribute].lists(value)
                ),
            )
            for row in self._registry.held_out(version)
        ]

    def _words(self) -> Followed:
        if self._followed is None:
            file = resources.locate(self._config.catalog.dictionary, self._config.path("."))
            self._followed = value_names.follow([], dictionary.load(file))
        return self._followed

    def _policy(self) -> Policy:
        policy = resources.locate(self._config.mlflow.promotion_policy, self._config.path("."))
        return promotion_gate.load_policy(policy)

    # the champion alias

    def promote(self, version: str, expected_current: str | None, details: Mapping[str, Any] | None = None) -> None:
        """Make ``version`` the champion, without the gate, if ``expected_current`` (None: no version) is it now.

        Promoting the champion again changes nothing. ``details`` are kept with the event. Raises GateRefused if another
        version is the champion or another process is promoting.
        """
        name = self._registry.name
        with self._registry.store.promoting() as assert_held:
            current = self._settled_champion()
            if current != expected_current:
                raise GateRefused(
                    f"the champion of {name} is version {current or NO_CHAMPION} now, expected was "
                    f"{expected_current or NO_CHAMPION}: it was promoted meanwhile. Compare with it and promote again."
                )
            if current != version:
                self._registry.find(version=version)
                event = {"at": self._now(), "action": PROMOTED, "champion_before": current, **(details or {})}
                self._move(version, event, assert_held)

    def go_back(self) -> dict[str, Any]:
        """Make the champion's predecessor the champion again; return the job's summary.

        A second call restores the predecessor's predecessor. Raises RegistryError if there is no champion or it has no
        predecessor.
        """
        name = self._registry.name
        with self._registry.store.promoting() as assert_held:
            self._settled_champion()
            champion = self._registry.find(alias=CHAMPION)
            demoted, restored = str(champion.version), champion.tags.get(_PREVIOUS)
            if not restored:
                raise RegistryError(f"{name} version {demoted} replaced no champion: cannot go back")
            self._registry.find(version=restored)
            event = {"at": self._now(), "action": WENT_BACK, "champion_before": demoted}
            self._move(restored, event, assert_held)
        return {"status": "went_back", "model_name": name, "model_version": restored, "champion_before": demoted}

    def history(self) -> list[dict[str, Any]]:
        """Return every promotion and going back, oldest first.

        Keys: at, action, version, champion_before, by, and what the gate found.
        """
        champion, events = self._registry.champion(), []
        for version in self._versions():
            name, tags = version.version, version.tags
            texts = {value for key, value in tags.items() if key.startswith(_EVENT)}
            if name == champion and _MOVING in tags:  # the process was killed after it had moved the alias
                texts.add(tags[_MOVING])
            events += [{"version": name, **json.loads(text)} for text in texts]
        return sorted(events, key=lambda event: datetime.fromisoformat(event["at"]))

    def _versions(self) -> list[RegisteredVersion]:
        return self._registry.store.model().versions()

    def _now(self) -> str:
        """Return a time later than every promotion and demotion so far: their order decides who was champion."""
        tags = [version.tags for version in self._versions()]
        times = [of_version[name] for of_version in tags for name in (_PROMOTED_AT, _DEMOTED_AT) if name in of_version]
        newest = max((datetime.fromisoformat(time) for time in times), default=None)
        return strictly_later(datetime.now(UTC), newest).isoformat()

    def _move(self, version: str, event: Mapping[str, Any], assert_held: AssertHeld) -> None:
        """Make ``version`` the champion, and write what ``event`` says of it."""
        self._tag(version, {_MOVING: json.dumps({"by": _user(), **event})})
        assert_held()
        self._registry.store.model().set_alias(CHAMPION, version)
        if (champion := self._settled_champion()) != version:
            raise GateRefused(
                f"the champion of {self._registry.name} was set to {version}, but is {champion}: the alias was moved "
                "meanwhile"
            )

    def _settled_champion(self) -> str | None:
        """Return the champion, after writing what the move that made it the champion has not written yet."""
        champion = self._registry.champion()
        text = self._registry.find(version=champion).tags.get(_MOVING) if champion else None
        if champion and text:
            event = json.loads(text)
            stamp = datetime.fromisoformat(event["at"]).strftime("%Y%m%dT%H%M%S.%fZ")
            settled: dict[str, str | None] = {}
            if event["action"] == PROMOTED:
                settled = {_PREVIOUS: event["champion_before"] or "", _PROMOTED_AT: event["at"]}
            else:
                self._tag(event["champion_before"], {_DEMOTED_AT: event["at"]})
            # the last is deleted last: a process that is killed before it does all of this again
            self._tag(champion, settled | {_EVENT + stamp: text, _MOVING: None})
        return champion

    def _tag(self, version: str, tags: Mapping[str, str | None]) -> None:
        self._registry.store.model().change_tags(version, tags)


def former_champions(versions: Sequence[RegisteredVersion]) -> list[str]:
    """Return the versions that were promoted at some time, without those demoted since by going back."""
    return [
        version.version
        for version in versions
        if (promoted := version.tags.get(_PROMOTED_AT))
        and not (
            (demoted := version.tags.get(_DEMOTED_AT))
            and datetime.fromisoformat(demoted) > datetime.fromisoformat(promoted)
        )
    ]


def describe(event: Mapping[str, Any]) -> str:
    """Return an event of :meth:`Promotion.history` in one line."""
    verb = "restored in place of" if event["action"] == WENT_BACK else "promoted after"
    line = f"{when(event['at'])}  version {event['version']} {verb} {event['champion_before'] or NO_CHAMPION}"
    line += f", by {event.get('by') or 'unknown'}"
    if event.get("reasons"):
        line += f": {event.get('verdict', '')}; " + "; ".join(event["reasons"])
    return line + (f"; override: {event['override']}" if event.get("override") else "")


def _refusal(name: str, version: str, result: GateResult) -> str:
    advice = ""
    if result.verdict is Verdict.INCONCLUSIVE:
        advice = "\nLabel more products and train again, or promote with --override REASON, which is recorded."
    reasons = "\n  - ".join(result.reasons)
    return f"{name} version {version} stays a candidate ({result.verdict}):\n  - {reasons}{advice}"


def _user() -> str:
    """Return the name of the operating system's user; containers may have none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
