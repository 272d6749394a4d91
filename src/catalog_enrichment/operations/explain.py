"""Explains a value: who wrote it or why there is none, with which certificate, its history, and how to undo it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, runs, switches
from catalog_enrichment.catalog.switches import Scope, State, Switches
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.operations import lookup, undo_options
from catalog_enrichment.operations.commands import ANY_CONFIG
from catalog_enrichment.operations.lookup import PersonSet
from catalog_enrichment.operations.undo_options import UndoOption
from catalog_enrichment.precision.certificate import CONTRACT, Certificate, is_below
from catalog_enrichment.records import Decision, Modality, QuarantineStage, Reason, Source
from catalog_enrichment.report import reasons

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.context import Context

_OF_THE_RUN = ("attributes", "config")
"""Columns of a decision's run, that are not a part of the decision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the tables say about one product and attribute, as rows."""

    product: Mapping[str, Any]
    attribute: Attribute
    current: Mapping[str, Any] | None
    """What readers see."""
    decisions: Sequence[Mapping[str, Any]]
    """Rows of `predictions` with ``decided_at`` and _OF_THE_RUN, newest run first, by rank."""
    history: Sequence[Mapping[str, Any]]
    """Ledger events, oldest first."""
    quarantined: Sequence[Mapping[str, Any]] = ()
    """Quarantine rows of the product, newest first."""
    rolled_back: Collection[str] = ()
    """Ids of the runs whose work on the attribute is rolled back."""
    person: PersonSet | None = None
    """What a person said last and stands, also where the merchant's value is seen."""
    switched: Switches = field(default_factory=Switches)

    @property
    def name(self) -> str:
        return self.attribute.name

    @property
    def removed(self) -> bool:
        """Whether readers see no value because a person said that there is none."""
        return self.current is None and self.person is not None and not self.person.values

    @property
    def by_person(self) -> bool:
        return self.removed or (self.current is not None and self.current["source"] == Source.HUMAN.value)


def explain_value(
    context: Context, product_id: str, attribute: str, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Who wrote a product's value or why there is none, what would change it, its certificate, history and undo.

    ``config``: options of the commands that undo it. Raises ConfigError for a product or attribute that the catalog
    does not know.
    """
    found = _find(context.catalog, product_id, lookup.known_attribute(context.dictionary, attribute))
    current, decisions = found.current, found.decisions
    certificate = None if found.by_person else _certificate(decisions, current["certificate_id"] if current else None)
    ways = _ways_back(context.catalog, found, config)
    explained = {
        "product_id": product_id,
        "title": found.product["title"],
        "attribute": attribute,
        "merchant_values": _merchant_values(found),
        "current": current,
        "person": asdict(found.person) if found.person else None,
        "why": why(found, context.config.enrich),
        "certificate": certificate,
        "certificate_numbers": _numbers(certificate, context.config.precision.provisional_cap),
        "history": found.history,
        "decisions": [{k: v for k, v in one.items() if k not in _OF_THE_RUN} for one in decisions],
        "undo": ways[0].command if ways else None,
        "undo_options": [asdict(way) for way in ways],
    }
    for line in [*_in_words(explained, found), *(f"  {way.in_words()}" for way in ways)]:
        context.say(line)
    return explained


def why(found: Found, rules: EnrichConfig) -> str:
    """One or two sentences: why readers see this value or none, and what would change it.

    The second one says why the newest decision left the value as it is. ``rules``: disabled shops and categories.
    """
    current = found.current
    if current and current["source"] == Source.MERCHANT.value:
        return _ended(reasons.merchant_gave(_merchant_values(found)))
    if found.by_person:
        said = Reason.REMOVED_BY_PERSON if found.removed else Reason.SET_BY_PERSON
        who_and_why = found.person.who_and_why if found.person else ""
        return _ended(reasons.sentence(said, reasons.Case(attribute=found.name, detail=who_and_why)))
    newest = found.decisions[0] if found.decisions else None
    if current:
        return " ".join(map(_ended, _why_it_stands(found, current, rules)))
    if without_decision := _switched_off(found, rules):
        return _ended(without_decision)
    if newest is None or newest["content_hash"] != found.product["content_hash"]:
        refused = [row for row in found.quarantined if row["content_hash"] == found.product["content_hash"]]
        if refused:
            case = reasons.Case(attribute=found.name, detail=f"{refused[0]['reason']}: {refused[0]['detail']}")
            return _ended(reasons.sentence(Reason.ALREADY_QUARANTINED, case))
    if newest is None:
        return _ended(reasons.never_scored(found.name))
    if _published(newest):  # and readers see nothing
        return _ended(_taken_away(found))
    changed = newest["content_hash"] != found.product["content_hash"]
    return _ended(_about(found, newest)) + (" The content has changed since: the next run decides." if changed else "")


def _why_it_stands(found: Found, current: Mapping[str, Any], rules: EnrichConfig) -> Iterator[str]:
    """Sentences about a model value that readers see: who wrote it, and why newer facts have not changed it."""
    run_id = current["run_id"]
    written = [one for one in found.decisions if one["run_id"] == run_id and _published(one)]
    yield _about(found, written[0]) if written else reasons.decision_not_stored(current["values"], run_id)
    newest = found.decisions[0] if found.decisions else None
    if newest and newest["run_id"] in found.rolled_back:
        yield reasons.seen_after_rollback(newest["run_id"], newest["value"] if _published(newest) else None)
    in_force = [one for one in found.decisions if one["run_id"] not in found.rolled_back]
    if in_force and in_force[0]["run_id"] != run_id:
        yield "It stands, although in the newest decision " + _about(found, in_force[0])
    contents = {event["content_hash"] for event in found.history if event["run_id"] == run_id}
    if switched_off := _switched_off(found, rules):
        yield "The next run retracts it: " + switched_off
    elif contents and found.product["content_hash"] not in contents:
        yield "It was written for older content: the next run decides on the new content, or retracts it"


def _find(catalog: Catalog, product_id: str, attribute: Attribute) -> Found:
    from pyspark.sql import functions as F

    of_product = F.col("product_id") == product_id
    of_this = of_product & (F.col("attribute") == attribute.name)
    product = lookup.known_product(catalog, product_id, attribute.name)
    quarantine = catalog.read("quarantine").where(of_product & (F.col("stage") == QuarantineStage.DECODE.value))
    finished = runs.latest_attempts(catalog).select("run_id", F.col("finished_at").alias("decided_at"), *_OF_THE_RUN)
    decisions = catalog.read("predictions").where(of_this).join(finished, "run_id")
    current = catalog.read("current_values").where(of_this).first()
    events = lookup.events_about(catalog, product_id, attribute.name)
    return Found(
        product=product,
        attribute=attribute,
        current=current.asDict() if current else None,
        decisions=[row.asDict() for row in decisions.orderBy(F.desc("decided_at"), "rank").collect()],
        history=[row.asDict() for row in ledger.history(events, product_id, attribute.name).collect()],
        quarantined=[row.asDict() for row in quarantine.orderBy(F.desc("quarantined_at")).collect()],
        person=lookup.person_set(catalog, ledger.active(events)),
        rolled_back=runs.rolled_back(catalog, [attribute.name]).get(attribute.name, ()),
        switched=switches.read(catalog),
    )


def _switched_off(found: Found, rules: EnrichConfig) -> str:
    """Why no run decides the attribute of this product; "" if runs do. In the order of :mod:`enrichment.select`."""
    product, category = found.product, found.product["category"]
    case = reasons.Case(attribute=found.name, categories=[category or ""], shop=product["shop_id"])
    if product["opt_out"]:
        return reasons.sentence(Reason.OPTED_OUT, case)
    if product["shop_id"] in rules.disabled_shops:
        return reasons.sentence(Reason.SHOP_DISABLED, case)
    if not found.attribute.enabled:
        return reasons.attribute_disabled(found.name)
    if not found.attribute.applies_to(category):
        return reasons.sentence(Reason.NOT_APPLICABLE, case)
    for root in rules.disabled_categories:
        if is_below(category or "", root):
            return reasons.category_disabled(root)
    for switch in found.switched.entries:
        about = {
            Scope.ATTRIBUTE: switch.attribute == found.name,
            Scope.SHOP: switch.target == product["shop_id"],
            Scope.CATEGORY: is_below(category or "", switch.target),
        }
        if switch.state is State.OFF and about.get(switch.scope, False):
            return reasons.switched_off(str(switch), switch.who, switch.why)
    return ""


def _about(found: Found, decision: Mapping[str, Any]) -> str:
    """The sentence of a decision's reason."""
    if decision["reason"] == Reason.HUMAN_VALUE_STANDS.value and found.person is None:
        return reasons.person_took_back(found.name)
    modality = Modality(decision["modality"])
    certificate = None
    for content in _certificates_of_run(decision):
        if content["certificate_id"] == decision["certificate_id"] and content.get("contract") == CONTRACT:
            certificate = Certificate.from_dict(content)
    images = json.loads(decision["config"] or "{}").get("images", {})
    case = reasons.Case(
        attribute=found.name,
        value=decision["value"],
        score=decision["score"],
        modality=modality,
        certificate=certificate,
        categories=[decision["category"] or ""],
        languages=[decision["language"] or ""],
        merchant_values=_merchant_values(found),
        differing=reasons.differing_fields(certificate, decision["compute_type"], images) if certificate else (),
    )
    return reasons.sentence(Reason(decision["reason"]), case)


def _taken_away(found: Found) -> str:
    """Why a value that was published is not there; the last event of the ledger says it."""
    last = found.history[-1] if found.history else None
    if last is None or last["reason"] is None or last["op"] != "retract":
        return reasons.never_scored(found.name)
    return reasons.sentence(Reason(last["reason"]), reasons.Case(attribute=found.name))


def _published(decision: Mapping[str, Any]) -> bool:
    return bool(decision["decision"] == Decision.PUBLISH.value)


def _merchant_values(found: Found) -> list[str]:
    return list((found.product["merchant_attributes"] or {}).get(found.name) or ())


def _ended(sentence: str) -> str:
    return f"{sentence}."


def _ways_back(catalog: Catalog, found: Found, config: Sequence[str]) -> list[UndoOption]:
    run_id = undo_options.run_to_undo(found.current, found.person)
    if run_id is None:
        return []
    product_id = found.product["product_id"]
    others = undo_options.others_of(catalog, run_id, product_id, found.name)
    return undo_options.undo_options((product_id, found.name), run_id, found.by_person, others, config)


def _in_words(explained: dict[str, Any], found: Found) -> Iterator[str]:
    certificate = explained["certificate"]
    yield f"{explained['product_id']}: {explained['title']}"
    yield f"{explained['attribute']}: {lookup.seen_in_words(found.current, found.person)}"
    yield f"  why: {explained['why']}"
    for decision in explained["decisions"][:5]:
        against = f", threshold {decision['threshold']:.3f}" if decision["threshold"] is not None else ""
        yield (
            f"  {decision['decided_at']:%Y-%m-%d %H:%M} version {decision['model_version']} "
            f"proposed {decision['value']!r}, score {decision['score']:.3f}{against}: "
            f"{decision['decision']} ({decision['reason']})"
        )
    if certificate:
        yield f"  certificate {certificate['certificate_id'][:12]}: {certificate['claim']}"
        for number in explained["certificate_numbers"]:
            yield f"    {number['name']} {number['value']}: {number['meaning']}"
    for event in explained["history"]:
        value = "no value" if event["value"] == ledger.NO_VALUE else repr(event["value"])
        yield f"  {event['asserted_at']:%Y-%m-%d %H:%M} {event['op']} {value} by run {event['run_id']}"


def _certificate(decisions: Sequence[Mapping[str, Any]], certificate_id: str | None) -> dict[str, Any] | None:
    """The certificate as it stood in the run that used it; without a current value, the last one consulted."""
    for decision in decisions:
        for certificate in _certificates_of_run(decision):
            if certificate["certificate_id"] == (certificate_id or decision["certificate_id"]):
                return certificate
    return None


def _numbers(certificate: Mapping[str, Any] | None, provisional_cap: int) -> list[dict[str, str]]:
    """The certificate's numbers with what they mean; empty for an abstention or an older contract."""
    if certificate is None or certificate.get("contract") != CONTRACT or certificate["threshold"] is None:
        return []
    return [
        asdict(number) for number in reasons.certificate_numbers(Certificate.from_dict(certificate), provisional_cap)
    ]


def _certificates_of_run(decision: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(json.loads(decision["attributes"] or "{}").get("certificates", []))
