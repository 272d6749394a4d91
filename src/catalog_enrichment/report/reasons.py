"""For people: one sentence per reason, why a value is written or not and what would change it.

For the run report, where a sentence is about many products, and `explain_value`, where it is about one. Every
:class:`Reason` has a sentence. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from catalog_enrichment.precision.certificate import Certificate, is_below
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.records import Modality, Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What a sentence is about. What is not known, or differs between the products, is None or empty."""

    attribute: str
    value: str | None = None
    score: float | None = None
    """None: the sentence is about many products."""
    modality: Modality | None = None
    certificate: Certificate | None = None
    """That the decision consulted."""
    categories: Sequence[str] = ()
    """Of the products; "" for none."""
    languages: Sequence[str] = ()
    merchant_values: Sequence[str] = ()
    shop: str | None = None
    differing: Sequence[str] = ()
    """What the certificate is bound to and the scores differ in, in words."""
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


def sentence(reason: Reason, case: Case) -> str:
    """One sentence, without a full stop, that begins in lower case."""
    text = _SENTENCES[reason]
    return text if isinstance(text, str) else text(case)


def what_waits(attribute: str, values: int) -> str:
    """About ``values`` that wait under the provisional cap."""
    wait = "value waits" if values == 1 else "values wait"
    return (
        f"{values:,} {wait} under the provisional cap of {attribute}: audit to confirm the certificate, or raise "
        "precision.provisional_cap"
    )


def attribute_disabled(attribute: str) -> str:
    return f'{attribute} is switched off: set "enabled": true in the dictionary'


def switched_off(what: str, who: str, why: str) -> str:
    said = f" ({why})" if why else ""
    return f"{what} is switched off by {who}{said}: set_switch --state on switches it on again"


def category_disabled(category: str) -> str:
    return f"category {category} is in enrich.disabled_categories: take it out of the list"


def merchant_gave(values: Sequence[str]) -> str:
    return f"the merchant gave {_quoted(values)}, and a merchant's value is never changed"


def never_scored(attribute: str) -> str:
    return f"no finished run has decided {attribute} of this product yet: the next run of enrich_catalog does"


def person_took_back(attribute: str) -> str:
    """About a decision that was made while a person's value stood."""
    return f"{attribute} was left to a person, whose word was taken back: the next run of enrich_catalog decides it"


def decision_not_stored(values: Sequence[str], run_id: str) -> str:
    return f"{_quoted(values)} was written by run {run_id}, whose decision about it is not stored"


def seen_after_rollback(run_id: str, wrote: str | None) -> str:
    """About a value that is seen again. ``wrote``: what the run that was rolled back wrote instead; None: nothing."""
    did = "did not write it" if wrote is None else f"wrote {wrote!r} instead"
    return f"It is seen because run {run_id}, which {did}, was rolled back; rolling back the rollback undoes that"


def images_not_allowed(products: int, of: int) -> str:
    """About ``products`` of ``of`` that were scored by their text alone."""
    return (
        f"warning: the pictures of {products:,} of {of:,} scored products were not read, because their address is not "
        "among those that may be read (image_not_allowed): list their folders in images.fetch.allowed_folders, or "
        "their hosts in images.fetch.private_hosts; a config without [source] allows no local folder by itself"
    )


def differing_fields(certificate: Certificate, compute_type: str | None, images: Mapping[str, int]) -> list[str]:
    """What of :class:`ScoredBy` explains a certificate mismatch, in words.

    ``compute_type``: of the scores; ``images``: the section [images] of the run's config. Where neither differs, it is
    the weights or the preprocessing, which a run does not store.
    """
    facts = {
        "compute type": (certificate.compute_type, compute_type),
        "images.max_bytes": (certificate.max_image_bytes, images.get("max_bytes")),
        "images.max_pixels": (certificate.max_image_pixels, images.get("max_pixels")),
    }
    differing = [
        f"{name} (certificate {certified}, run {used})"
        for name, (certified, used) in facts.items()
        if used is not None and used != certified
    ]
    return differing or ["weights or preprocessing"]


def _certified(case: Case) -> str:
    value = repr(case.value) if case.score is not None else case.attribute
    return f"{value} is written: {case.scores} at or above {case.threshold}"


def _below_threshold(case: Case) -> str:
    return (
        f"{case.subject} abstains: {case.scores} below {case.threshold}; a better model, from more labelled products, "
        "may score it higher"
    )


def _near_miss(case: Case) -> str:
    return (
        f"{case.subject} is suggested and not written: {case.scores} just below {case.threshold}; export_suggestions "
        "lists it for the merchant"
    )


def _not_in_pool(case: Case) -> str:
    what = f"{case.value!r}" if case.score is not None else "such a value"
    return (
        f"{case.subject} is not written: {what} is not among the certified values, it was wrong too often or had too "
        "few labels; more labelled products with this value and a new version can certify it"
    )


def _no_certificate(case: Case) -> str:
    path = "" if case.modality is None else f" for products {PATHS[case.modality]}"
    if case.certificate is None:
        return (
            f"{case.subject} is not written{path}: this version has no certificate for it; train and promote a version"
        )
    return (
        f"{case.subject} is not written{path}: {case.certificate.why_abstains}; more labelled products or a better "
        "model can change it"
    )


def _mismatch(case: Case) -> str:
    what = " and ".join(case.differing) or "what computed them"
    return (
        f"{case.subject} abstains: the certificate is about other scores, which differ in {what}; run with what was "
        "certified, or train and promote a version here"
    )


def _expired(case: Case) -> str:
    when = f" on {case.certificate.expires_at:%Y-%m-%d}" if case.certificate else ""
    return f"{case.subject} abstains: the certificate expired{when}: train and promote a new version"


def _unseen(case: Case) -> str:
    """Refused languages and categories with the labelled products that are missing; else what had no labels."""
    certificate = case.certificate
    if certificate is None:
        return f"{case.subject} abstains: its category or language was not certified; label products of it"
    refused = _refused(case, certificate)
    if refused:
        needed = " and ".join(refused)
        return f"{case.subject} is not written there: {needed} are needed to certify it"
    unseen = [f"category {name or '(none)'}" for name in case.categories if name not in certificate.categories]
    unseen += [f"language {name or '(none)'}" for name in case.languages if name not in certificate.languages]
    names = ", ".join(unseen[:5]) or "its category together with its language"
    return (
        f"{case.subject} abstains: {names} had no labelled product when the version was certified; label products "
        "of it, then train and promote a version"
    )


def _refused(case: Case, certificate: Certificate) -> list[str]:
    """What is missing in the refused languages and categories that the products are in."""
    languages = [row for row in certificate.refused_languages if row.language in case.languages]
    categories = [
        row
        for row in certificate.refused_categories
        if any(is_below(name, row.category) for name in case.categories)
        and (row.language in case.languages or not case.languages)
    ]
    several = len(certificate.languages) > 1
    needed = [
        f"about {row.labelled_missing:,} more labelled products {_in_language(row.language)}" for row in languages
    ]
    for row in categories:
        where = f" {_in_language(row.language)}" if several else ""
        of = f"products of {row.category}" if row.category else "products without a category"
        needed.append(f"about {row.labelled_missing:,} more labelled {of}{where}")
    return needed


def _in_language(language: str) -> str:
    return f"in language {language}" if language else "without a language"


def _capped(case: Case) -> str:
    return (
        f"{case.subject} waits: {case.scores} high enough, and the values under provisional certificates are at their "
        "limit; audit to confirm the certificate, or raise precision.provisional_cap"
    )


def _picture_outage(case: Case) -> str:
    return (
        f"{case.subject} abstains: no picture could be used this time, but one may be there at the next try, or the "
        "value that stands was decided with one; a later run tries again when the picture can be fetched"
    )


def _disagrees(case: Case) -> str:
    given = _quoted(case.merchant_values) if case.merchant_values else "another value"
    return (
        f"{case.subject} is suggested and not written: the merchant gave {given}, and a merchant's value is never "
        "changed; export_suggestions lists it for the merchant"
    )


def _agrees(case: Case) -> str:
    given = f" ({_quoted(case.merchant_values)})" if case.merchant_values else ""
    return f"{case.subject} is not written: the merchant gave the same value{given}; nothing to do"


def _human(case: Case) -> str:
    return (
        f"{case.subject} is not written: a person gave a value or said that there is none, which stands before a "
        "model's value; only a person changes it"
    )


def _paused(case: Case) -> str:
    return (
        f"{case.subject} is paused by an audit, a drift check or a person (set_switch --list says which and why); "
        "recertify_model certifies it again from audited values, set_switch --state on lifts it"
    )


def _not_applicable(case: Case) -> str:
    category = f"category {case.categories[0] or '(none)'}" if case.categories else "the product's category"
    return f"{case.attribute} does not apply to {category}: add it to the attribute's categories in the dictionary"


def _shop_disabled(case: Case) -> str:
    shop = f"shop {case.shop}" if case.shop else "the shop"
    return f"{shop} is in enrich.disabled_shops, or switched off: take it out of the list, or set_switch --state on"


def _detail(case: Case) -> str:
    return f" ({case.detail})" if case.detail else ""


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values))


def _row(problem: str, remedy: str = "correct the feed") -> Callable[[Case], str]:
    """A row that an import refused."""
    return lambda case: f"the row is in quarantine: {problem}{_detail(case)}; {remedy}, then import it again"


def _picture(problem: str) -> str:
    """A picture that could not be used."""
    return f"the product is scored by its text alone: {problem}; with a usable picture it is scored with both"


_SENTENCES: dict[Reason, str | Callable[[Case], str]] = {
    Reason.UNPARSEABLE_ROW: _row("it cannot be parsed"),
    Reason.MISSING_ID: _row("it has no product id"),
    Reason.DUPLICATE_ID: _row("its product id is there twice"),
    Reason.EMPTY_TITLE: _row("its title is empty"),
    Reason.TEXT_TOO_LONG: _row("its text is too long"),
    Reason.SCORING_FAILED: lambda case: (
        f"the product is in quarantine: the model could not score it{_detail(case)}; other content or another version "
        "is tried"
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
    Reason.OPTED_OUT: ("the merchant opted out: the product gets no model values until the feed says otherwise"),
    Reason.NOT_APPLICABLE: _not_applicable,
    Reason.SHOP_DISABLED: _shop_disabled,
    Reason.ALREADY_SCORED: "this model version has decided it on this content; nothing to do",
    Reason.ALREADY_QUARANTINED: lambda case: (
        f"this model version could not score this content{_detail(case)}; other content or another version is tried"
    ),
    Reason.OVER_LIMIT: (
        "the run's limit was reached (enrich.max_products): the next run goes on with newer products first"
    ),
    Reason.UNCHANGED: "no import has changed it since the last run, which left nothing open; nothing to do",
    Reason.CERTIFIED: _certified,
    Reason.DISAGREES_WITH_MERCHANT: _disagrees,
    Reason.AGREES_WITH_MERCHANT: _agrees,
    Reason.HUMAN_VALUE_STANDS: _human,
    Reason.REFUSED_BY_PERSON: lambda case: (
        f"{case.subject} is not written: a reviewer said that this value is wrong; set_value gives another word on it"
    ),
    Reason.NEAR_MISS: _near_miss,
    Reason.BELOW_THRESHOLD: _below_threshold,
    Reason.VALUE_NOT_IN_POOL: _not_in_pool,
    Reason.NO_CERTIFICATE: _no_certificate,
    Reason.CERTIFICATE_MISMATCH: _mismatch,
    Reason.CERTIFICATE_EXPIRED: _expired,
    Reason.UNSEEN_SLICE: _unseen,
    Reason.PAUSED: _paused,
    Reason.PROVISIONAL_CAP: _capped,
    Reason.PICTURE_OUTAGE: _picture_outage,
    Reason.SET_BY_PERSON: lambda case: (
        f"a person gave a value{_detail(case)}, which stands before a model's; only a person changes it"
    ),
    Reason.REMOVED_BY_PERSON: lambda case: (
        f"a person said that there is no {case.attribute}{_detail(case)}: no model writes one until that is undone"
    ),
    Reason.CONTENT_CHANGED: (
        "the model value was retracted because the content changed; the newest decision wrote no other"
    ),
    Reason.SWITCHED_OFF: (
        "the model value was retracted because its attribute, shop or category was switched off, or the attribute did "
        "not apply to the product's category; switched on again, the next run decides it again"
    ),
    Reason.SUPERSEDED: "the model value was retracted because its score is now too low",
    Reason.ROLLED_BACK: (
        "the value was taken back by a rollback, and this version does not write it again; rolling back the rollback "
        "restores it"
    ),
}


# --- the numbers of a certificate


@dataclass(frozen=True, slots=True)
class CertificateNumber:
    """One number of a certificate with what it means."""

    name: str
    value: str
    meaning: str


def certificate_numbers(certificate: Certificate, provisional_cap: int | None = None) -> list[CertificateNumber]:
    """The numbers of a certificate with a threshold, explained. ``provisional_cap``: of the run's config, if known."""
    c = certificate
    limit = "a limited number of" if provisional_cap is None else f"{provisional_cap:,}"
    status = (
        f"merchants' labels gave it; until an audit confirms it, at most {limit} values of the attribute may stand "
        "(precision.provisional_cap)"
    )
    if c.status.value == "confirmed":
        status = "an audit of the catalog confirmed it"
    rows = [
        ("threshold", f"{c.threshold:.4f}", "values with a score from here on are written"),
        ("N", f"{c.accepted:,}", "accepted: certification products with a score at or above the threshold"),
        ("K", f"{c.wrong:,}", "accepted certification products with a wrong value"),
        ("G", f"{c.groups:,}", "content groups with an accepted product; products of one group are near copies"),
        ("design effect", f"{c.deff:.2f}", "so many accepted products count as one independent product"),
        (
            "lower bound",
            f"{c.lower_bound:.1%}",
            f"the precision is at least this, with confidence {1 - c.tested_at:.1%}",
        ),
        ("delta", f"{c.delta:g}", "probability with which the first certificate on these labels may be wrong"),
        (
            "use number",
            f"{c.use_number}",
            f"how often these labels were used to certify; this use may spend {c.tested_at:.3g}",
        ),
        ("status", c.status.value, status),
        ("issued", _day(c.issued_at), "training gave the certificate on this day"),
        ("expires", _day(c.expires_at), "from this day nothing is written; train and promote a new version before"),
    ]
    return [CertificateNumber(*row) for row in rows]


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"
