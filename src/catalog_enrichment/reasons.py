"""Why a row, a picture, a product or a value was left out, and the sentence that tells people so.

A sentence is about one product (`explain_value`) or about many (the page of a run). Also the keys under which a run's
row says what it did not write, and the lines made from them. Imports neither Spark nor torch, so that every room can
use it, on the driver and on executors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class Reason(StrEnum):
    """Why a row was quarantined, a picture was not used, a product was skipped, or a value was not written."""

    # quarantine: the row
    UNPARSEABLE_ROW = "unparseable_row"
    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    EMPTY_TITLE = "empty_title"
    TEXT_TOO_LONG = "text_too_long"
    TOO_MANY_VALUES = "too_many_values"
    SCORING_FAILED = "scoring_failed"
    # a picture that cannot be used: the product takes the text-only path
    NO_IMAGE = "no_image"
    IMAGE_NOT_ALLOWED = "image_not_allowed"
    IMAGE_UNREACHABLE = "image_unreachable"
    IMAGE_MISSING = "image_missing"
    IMAGE_EMPTY = "image_empty"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_NOT_AN_IMAGE = "image_not_an_image"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_UNREADABLE = "image_unreadable"
    # skipped: not scored in this run
    OPTED_OUT = "opted_out"
    NOT_APPLICABLE = "not_applicable"
    SHOP_DISABLED = "shop_disabled"
    ALREADY_SCORED = "already_scored"
    ALREADY_QUARANTINED = "already_quarantined"
    OVER_LIMIT = "over_limit"
    UNCHANGED = "unchanged"
    # decisions
    CERTIFIED = "certified"
    DISAGREES_WITH_MERCHANT = "disagrees_with_merchant"
    AGREES_WITH_MERCHANT = "agrees_with_merchant"
    HUMAN_VALUE_STANDS = "human_value_stands"
    REFUSED_BY_PERSON = "refused_by_person"
    """A reviewer said that the value is wrong; also the reason of the event that retracts it."""
    NEAR_MISS = "near_miss"
    BELOW_THRESHOLD = "below_threshold"
    VALUE_NOT_IN_POOL = "value_not_in_pool"
    NO_PROPOSAL = "no_proposal"
    NO_ANSWER = "no_answer"
    """The proposer has not been asked about this content, or its answer has not come."""
    VALUE_REMOVED = "value_removed"
    """The dictionary does not list the value any more; also the reason of the event that retracts it."""
    NO_CERTIFICATE = "no_certificate"
    CERTIFICATE_MISMATCH = "certificate_mismatch"
    CERTIFICATE_EXPIRED = "certificate_expired"
    UNSEEN_SLICE = "unseen_slice"
    PAUSED = "paused"
    PROVISIONAL_CAP = "provisional_cap"
    PICTURE_OUTAGE = "picture_outage"
    # assert events of people
    SET_BY_PERSON = "set_by_person"
    REMOVED_BY_PERSON = "removed_by_person"
    # retract events without a decision of their own
    CONTENT_CHANGED = "content_changed"
    CATEGORY_CHANGED = "category_changed"
    SWITCHED_OFF = "switched_off"
    SUPERSEDED = "superseded"
    PRODUCT_GONE = "product_gone"
    ROLLED_BACK = "rolled_back"


TRANSIENT = frozenset({Reason.IMAGE_UNREACHABLE})
"""Reasons about a picture that may be gone when it is tried again: no decision is made on the text alone."""

JUDGED = frozenset(
    {
        Reason.NEAR_MISS,
        Reason.BELOW_THRESHOLD,
        Reason.NO_PROPOSAL,
        Reason.VALUE_NOT_IN_POOL,
        Reason.VALUE_REMOVED,
        Reason.REFUSED_BY_PERSON,
    }
)
"""Reasons that a score was too low to be published, or the value is known to be wrong: older model values of the
attribute are retracted."""

WITHOUT_DECISION = frozenset({Reason.PRODUCT_GONE, Reason.SWITCHED_OFF, Reason.CONTENT_CHANGED})
"""Reasons of retractions that need no decision: a value that was retracted so after its attribute's newest decision is
decided again as soon as a run may decide it."""

ABOUT_MERCHANT = frozenset({Reason.AGREES_WITH_MERCHANT, Reason.DISAGREES_WITH_MERCHANT})
"""Reasons that hold as long as the merchant gives a value: without it the attribute is pending again."""

ABOUT_PERSON = frozenset({Reason.HUMAN_VALUE_STANDS})
"""Reasons that hold as long as a person's value is active: without it the attribute is pending again."""

SEEN_BY_TRYING = frozenset({Reason.CERTIFICATE_MISMATCH, Reason.PICTURE_OUTAGE})
"""Reasons that only another scoring can find gone: the executors' device, pictures that can be fetched again."""

ADMINISTRATIVE = SEEN_BY_TRYING | {
    Reason.NO_ANSWER,
    Reason.NO_CERTIFICATE,
    Reason.CERTIFICATE_EXPIRED,
    Reason.UNSEEN_SLICE,
    Reason.PAUSED,
    Reason.PROVISIONAL_CAP,
}
"""Reasons that the score was not used: on the same content older model values stay active, and the attribute is pending
again when the fact behind the reason has changed."""


# --- sentences of the reasons ----------------------------------------------------------------------------------------


class ConsultedCertificate(Protocol):
    """The part of precision.certificate.Certificate that sentences need."""

    @property
    def threshold(self) -> float | None: ...
    @property
    def why_abstains(self) -> str: ...
    @property
    def expires_at(self) -> datetime: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The facts of a sentence. A fact that is not known, or differs between the products, is None or empty."""

    attribute: str
    value: str | None = None
    score: float | None = None
    """The product; None where the sentence is about many products."""
    products: str = ""
    """Their modality path in words (precision.claim.PATHS)."""
    certificate: ConsultedCertificate | None = None
    """The certificate that the decision consulted."""
    unseen: str = ""
    """The part of these products that the certificate does not cover, in words (precision.claim.unseen)."""
    differing: Sequence[str] = ()
    """The facts of the certificate in which the scores differ, in words (precision.claim.differing_fields)."""
    category: str | None = None
    """The product's category; "" for none."""
    merchant_values: Sequence[str] = ()
    shop: str | None = None
    detail: str = ""

    @property
    def subject(self) -> str:
        return self.attribute if self.score is None else f"{self.attribute} of this product"

    @property
    def scores(self) -> str:
        return "the scores are" if self.score is None else f"its score {self.score:.3f} is"

    @property
    def threshold(self) -> str:
        """ "the certified threshold 0.930", without a number where it is not known."""
        number = self.certificate.threshold if self.certificate else None
        return "the certified threshold" + ("" if number is None else f" {number:.3f}")

    @property
    def in_brackets(self) -> str:
        """The detail."""
        return f" ({self.detail})" if self.detail else ""


def sentence(reason: Reason, case: Case) -> str:
    """Return a sentence, without a full stop, that begins in lower case: why, and what would change it."""
    text = _SENTENCES[reason]
    return text.format(case=case) if isinstance(text, str) else text(case)


def _not_in_pool(case: Case) -> str:
    value = repr(case.value) if case.score is not None else "such a value"
    return (
        f"{case.subject} is not written: {value} is not among the certified values, it was wrong too often or had too "
        "few labels; more labelled products with this value and a new version can certify it"
    )


def _no_certificate(case: Case) -> str:
    start = f"{case.subject} is not written{f' for products {case.products}' if case.products else ''}"
    if case.certificate is None:
        return f"{start}: this version has no certificate for it; train and promote a version"
    return f"{start}: {case.certificate.why_abstains}; more labelled products or a better model can change it"


def _mismatch(case: Case) -> str:
    differing = " and ".join(case.differing) or "what computed them"
    return (
        f"{case.subject} abstains: the certificate is about other scores, which differ in {differing}; run with what "
        "was certified, or train and promote a version here"
    )


def _expired(case: Case) -> str:
    when = f" on {case.certificate.expires_at:%Y-%m-%d}" if case.certificate else ""
    return f"{case.subject} abstains: the certificate expired{when}: train and promote a new version"


def _unseen(case: Case) -> str:
    unseen = case.unseen or "abstains: its category or language was not certified; label products of it"
    return f"{case.subject} {unseen}"


def _disagrees(case: Case) -> str:
    given = _quoted(case.merchant_values) or "another value"
    return (
        f"{case.subject} is suggested and not written: the merchant gave {given}, and a merchant's value is never "
        "changed; export_suggestions lists it for the merchant"
    )


def _agrees(case: Case) -> str:
    given = f" ({_quoted(case.merchant_values)})" if case.merchant_values else ""
    return f"{case.subject} is not written: the merchant gave the same value{given}; nothing to do"


def _not_applicable(case: Case) -> str:
    category = "the product's category" if case.category is None else f"category {case.category or '(none)'}"
    return f"{case.attribute} does not apply to {category}: add it to the attribute's categories in the dictionary"


def _shop_disabled(case: Case) -> str:
    shop = f"shop {case.shop}" if case.shop else "the shop"
    return f"{shop} is in enrich.disabled_shops, or switched off: take it out of the list, or set_switch --state on"


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values))


def _row(problem: str) -> str:
    """Return the sentence about a row that an import refused."""
    return f"the row is in quarantine: {problem}{{case.in_brackets}}; correct the feed, then import it again"


def _picture(problem: str) -> str:
    """Return the sentence about a picture that could not be used."""
    return f"the product is scored by its text alone: {problem}; with a usable picture it is scored with both"


_SENTENCES: dict[Reason, str | Callable[[Case], str]] = {
    Reason.UNPARSEABLE_ROW: _row("it cannot be parsed"),
    Reason.MISSING_ID: _row("it has no product id"),
    Reason.DUPLICATE_ID: _row("its product id is there twice"),
    Reason.EMPTY_TITLE: _row("its title is empty"),
    Reason.TEXT_TOO_LONG: _row("a text is too long"),
    Reason.TOO_MANY_VALUES: _row("it has too many pictures or values"),
    Reason.SCORING_FAILED: (
        "the product is in quarantine: the model could not score it{case.in_brackets}; other content or another "
        "version is tried"
    ),
    Reason.NO_IMAGE: _picture("it has no picture"),
    Reason.IMAGE_NOT_ALLOWED: _picture("its picture's address is not among those that may be read"),
    Reason.IMAGE_UNREACHABLE: (
        "the product's picture could not be reached: its attributes abstain and are tried again after 12 hours"
    ),
    Reason.IMAGE_MISSING: _picture("its picture is not where the feed says"),
    Reason.IMAGE_EMPTY: _picture("its picture has no bytes"),
    Reason.IMAGE_TRUNCATED: _picture("its picture is cut off"),
    Reason.IMAGE_NOT_AN_IMAGE: _picture("its picture is not a picture"),
    Reason.IMAGE_TOO_LARGE: _picture("its picture exceeds images.max_bytes or images.max_pixels"),
    Reason.IMAGE_UNREADABLE: _picture("its picture cannot be decoded"),
    Reason.OPTED_OUT: "the merchant opted out: the product gets no model values until the feed says otherwise",
    Reason.NOT_APPLICABLE: _not_applicable,
    Reason.SHOP_DISABLED: _shop_disabled,
    Reason.ALREADY_SCORED: "this model version has decided it on this content; nothing to do",
    Reason.ALREADY_QUARANTINED: (
        "this model version could not score this content{case.in_brackets}; other content or another version is tried"
    ),
    Reason.OVER_LIMIT: (
        "the run's limit was reached (enrich.max_products): the next run goes on with newer products first"
    ),
    Reason.UNCHANGED: "no import has changed it since the last run, which left nothing open; nothing to do",
    Reason.CERTIFIED: lambda case: (
        f"{repr(case.value) if case.score is not None else case.attribute} is written: {case.scores} at or above "
        f"{case.threshold}"
    ),
    Reason.DISAGREES_WITH_MERCHANT: _disagrees,
    Reason.AGREES_WITH_MERCHANT: _agrees,
    Reason.HUMAN_VALUE_STANDS: (
        "{case.subject} is not written: a person gave a value or said that there is none, which stands before a "
        "model's value; only a person changes it"
    ),
    Reason.REFUSED_BY_PERSON: (
        "{case.subject} is not written: a reviewer said that this value is wrong; set_value gives another word on it"
    ),
    Reason.NEAR_MISS: (
        "{case.subject} is suggested and not written: {case.scores} just below {case.threshold}; export_suggestions "
        "lists it for the merchant"
    ),
    Reason.BELOW_THRESHOLD: (
        "{case.subject} abstains: {case.scores} below {case.threshold}; a better model, from more labelled products, "
        "may score it higher"
    ),
    Reason.VALUE_NOT_IN_POOL: _not_in_pool,
    Reason.NO_PROPOSAL: (
        "{case.subject} is not written: the proposer gives no value of the dictionary; another version, or more "
        "spellings in the dictionary, may"
    ),
    Reason.NO_ANSWER: (
        "{case.subject} waits for an answer about its present content: one that is made elsewhere comes with "
        "import_proposals, a model that did not answer is asked again after 12 hours"
    ),
    Reason.NO_CERTIFICATE: _no_certificate,
    Reason.CERTIFICATE_MISMATCH: _mismatch,
    Reason.CERTIFICATE_EXPIRED: _expired,
    Reason.UNSEEN_SLICE: _unseen,
    Reason.PAUSED: (
        "{case.subject} is paused by an audit, a drift check or a person (set_switch --list says which and why); "
        "recertify_model certifies it again from audited values, set_switch --state on lifts it"
    ),
    Reason.PROVISIONAL_CAP: (
        "{case.subject} waits: {case.scores} high enough, and the values under provisional certificates are at their "
        "limit; audit to confirm the certificate, or raise precision.provisional_cap"
    ),
    Reason.PICTURE_OUTAGE: (
        "{case.subject} abstains: no picture could be used this time, but it may be there at the next try, or the "
        "value that stands was decided with a picture; a later run tries again when the picture can be fetched"
    ),
    Reason.SET_BY_PERSON: (
        "a person gave a value{case.in_brackets}, which stands before a model's; only a person changes it"
    ),
    Reason.REMOVED_BY_PERSON: (
        "a person said that there is no {case.attribute}{case.in_brackets}: no model writes a value until that is "
        "undone"
    ),
    Reason.VALUE_REMOVED: (
        "{case.subject} is not written: the dictionary does not list the value that the model finds any more; listed "
        "again, the next run decides it again"
    ),
    Reason.CATEGORY_CHANGED: (
        "the model value was retracted because the product moved to a category or language that the certificate does "
        "not cover; label products of it, and train a version"
    ),
    Reason.CONTENT_CHANGED: (
        "the model value was retracted because the content changed; the newest decision wrote no other"
    ),
    Reason.SWITCHED_OFF: (
        "the model value was retracted because its attribute, shop or category was switched off, or the attribute did "
        "not apply to the product's category; switched on again, the next run decides it again"
    ),
    Reason.PRODUCT_GONE: (
        "the value was retracted because its product was removed; if the product comes back, the next run decides it"
    ),
    Reason.SUPERSEDED: "the model value was retracted because its score is now too low",
    Reason.ROLLED_BACK: (
        "the value was taken back by a rollback, and this version does not write it again; rolling back the rollback "
        "restores it"
    ),
}


# --- other facts about one product -----------------------------------------------------------------------------------


def attribute_disabled(attribute: str) -> str:
    return f'{attribute} is switched off: set "enabled": true in the dictionary'


def attribute_removed(attribute: str) -> str:
    return f"{attribute} is not in the dictionary any more: nothing of it is predicted"


def switched_off(switch: str, who: str, why: str) -> str:
    return f"{switch} is switched off by {who}{f' ({why})' if why else ''}: set_switch --state on switches it on again"


def category_disabled(category: str) -> str:
    return f"category {category} is in enrich.disabled_categories: take it out of the list"


def merchant_gave(values: Sequence[str]) -> str:
    return f"the merchant gave {_quoted(values)}, and a merchant's value is never changed"


def no_value_given(value: str, why: str) -> str:
    """Say why a merchant's number or text is none of the attribute. ``why``: the rest of a sentence."""
    return f"{value!r} is no value of the attribute, and no label: {why}"


def never_scored(attribute: str) -> str:
    return f"no finished run has decided {attribute} of this product yet: the next run of enrich_catalog does"


def person_took_back(attribute: str) -> str:
    """Say that a decision was made while a person's value was active."""
    return f"{attribute} was left to a person, whose word was taken back: the next run of enrich_catalog decides it"


CONFIRMED_SINCE = "An audit has confirmed the certificate since: the next run of enrich_catalog decides again"


def decision_not_stored(values: Sequence[str], run_id: str) -> str:
    return f"{_quoted(values)} was written by run {run_id}, whose decision about it is not stored"


def seen_after_rollback(run_id: str, wrote: str | None) -> str:
    """Say why a value is seen again. ``wrote``: what the run that was rolled back wrote instead; None: nothing."""
    did = "did not write it" if wrote is None else f"wrote {wrote!r} instead"
    return f"It is seen because run {run_id}, which {did}, was rolled back; rolling back the rollback undoes that"


# --- what a run did not write ----------------------------------------------------------------------------------------

DRIFT_KEY, PAUSED_KEY, UNSEEN_KEY = "drift", "paused", "unseen"
STOPPED_KEY, DIFFERENCES_KEY = "stopped", "label_differences"
PROPOSER_KEY = "proposer"
"""Keys in the column `attributes` of a run's row: the strata whose scores have drifted, the switches that are not on,
the slices that no certificate covers; the attributes that were not decided and why, and sentences about other
differences between the model's labels and the dictionary; who made the proposals."""

RunAttributes = Mapping[str, Any]
"""The column `attributes` of a run's row in `runs`."""


def waiting(attribute: str, values: int) -> str:
    """Say how many ``values`` wait under the provisional cap."""
    wait = "value waits" if values == 1 else "values wait"
    return (
        f"{values:,} {wait} under the provisional cap of {attribute}: audit to confirm the certificate, or raise "
        "precision.provisional_cap"
    )


def drifted(attributes: RunAttributes) -> list[str]:
    """Return a line per stratum that the run paused."""
    pauses = attributes.get(DRIFT_KEY, {}).get("pauses", [])
    return [f"{row['attribute']} {row['stratum']} is paused: {row['why']}" for row in pauses]


def stopped(attributes: RunAttributes) -> list[str]:
    """Return a line per attribute that was not decided because something is wrong with it."""
    return [f"{name} was not decided: {why}" for name, why in attributes.get(STOPPED_KEY, {}).items()]


def not_covered(attributes: RunAttributes) -> list[str]:
    """Return a line per attribute that was not decided, per difference between model and dictionary, per switch that
    is not on, but for those of :func:`drifted`, and per attribute with slices that certification never saw."""
    own = {f"stratum {line}" for line in drifted(attributes)}
    lines = [*stopped(attributes), *attributes.get(DIFFERENCES_KEY, [])]
    lines += [f"not on: {line}" for line in attributes.get(PAUSED_KEY, []) if line not in own]
    for name, slices in attributes.get(UNSEEN_KEY, {}).items():
        named = ", ".join(f"{of} ({products:,} products)" for of, products in slices.items())
        lines.append(f"{name} is not certified for: {named}")
    return lines
