"""Enumerations that the whole package shares (decisions, reasons, modality paths, ledger operations), stable ids and
ordered times.

Imports neither Spark nor torch, so that every room can use it, on the driver and on executors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any


class Decision(StrEnum):
    """What happens to a product's attribute after scoring. Exactly one per scored product and attribute (I7)."""

    PUBLISH = "publish"
    SUGGEST = "suggest"
    ABSTAIN = "abstain"


class Modality(StrEnum):
    """Which inputs the score was computed from. Each path has its own certificates (PRECISION, certificate 5)."""

    BOTH = "both"
    TEXT_ONLY = "text_only"


class Op(StrEnum):
    """What a ledger event does. ``retract`` and ``reinstate`` refer to the assert event they act on."""

    ASSERT = "assert"
    RETRACT = "retract"
    REINSTATE = "reinstate"


class Source(StrEnum):
    """Who gave a value, in order of precedence: the merchant, a human reviewer, a model."""

    MERCHANT = "merchant"
    HUMAN = "human"
    MODEL = "model"


class Cardinality(StrEnum):
    """How many values of an attribute one product can have."""

    ONE = "one"
    MANY = "many"


class QuarantineStage(StrEnum):
    """The job stage that sent a row to quarantine: column `stage` of the quarantine table."""

    IMPORT = "import"
    DECODE = "decode"


class RunKind(StrEnum):
    IMPORT = "import"
    ENRICH = "enrich"
    BACKFILL = "backfill"
    ROLLBACK = "rollback"
    SET_VALUE = "set_value"
    MAINTAIN = "maintain"
    SAMPLE = "sample"
    """Drew a sample for reviewers."""
    AUDIT = "audit"
    """Brought in what reviewers said."""
    REVOKE = "revoke"
    """Took back what a certificate had allowed."""
    RECERTIFY = "recertify"
    """Issued new certificates from audited values."""
    CERTIFY = "certify"
    """Issued certificates without training."""


class RunStatus(StrEnum):
    """How an attempt of a run ended (column `status` of the table `runs`)."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """A gate refused it (GateRefused) before it published anything."""
    FAILED = "failed"
    """An error ended it; what it had published by then is visible. A killed attempt leaves no row."""


NOTHING_TO_DO, DRY_RUN = "nothing_to_do", "dry_run"
"""Statuses of a job's summary that change nothing and leave no row in the `runs` table."""


class Reason(StrEnum):
    """Why a row was quarantined, a picture was not used, a product was skipped, or a value was not written."""

    # quarantine: the row
    UNPARSEABLE_ROW = "unparseable_row"
    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    EMPTY_TITLE = "empty_title"
    TEXT_TOO_LONG = "text_too_long"
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
    NO_CERTIFICATE = "no_certificate"
    CERTIFICATE_MISMATCH = "certificate_mismatch"
    CERTIFICATE_EXPIRED = "certificate_expired"
    UNSEEN_SLICE = "unseen_slice"
    PAUSED = "paused"
    PROVISIONAL_CAP = "provisional_cap"
    PICTURE_OUTAGE = "picture_outage"
    # events without a decision of their own: what a person says
    SET_BY_PERSON = "set_by_person"
    REMOVED_BY_PERSON = "removed_by_person"
    # retract events without a decision of their own
    CONTENT_CHANGED = "content_changed"
    SWITCHED_OFF = "switched_off"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"


TRANSIENT = frozenset({Reason.IMAGE_UNREACHABLE})
"""Reasons about a picture that may be gone when it is tried again: no decision is made on the text alone."""

JUDGED = frozenset({Reason.NEAR_MISS, Reason.BELOW_THRESHOLD, Reason.VALUE_NOT_IN_POOL, Reason.REFUSED_BY_PERSON})
"""Reasons that a score was too low to be published, or the value is known to be wrong: older model values of the
attribute are retracted."""

WITHDRAWN = frozenset({Reason.SWITCHED_OFF, Reason.CONTENT_CHANGED})
"""Reasons of retractions that need no decision: a value that was retracted so after its attribute's newest decision is
decided again as soon as a run may decide it."""

ABOUT_MERCHANT = frozenset({Reason.AGREES_WITH_MERCHANT, Reason.DISAGREES_WITH_MERCHANT})
"""Reasons that hold as long as the merchant gives a value: without it the attribute is pending again."""

ABOUT_PERSON = frozenset({Reason.HUMAN_VALUE_STANDS})
"""Reasons that hold as long as what a person said stands: without it the attribute is pending again."""

ADMINISTRATIVE = frozenset(
    {
        Reason.NO_CERTIFICATE,
        Reason.CERTIFICATE_MISMATCH,
        Reason.CERTIFICATE_EXPIRED,
        Reason.UNSEEN_SLICE,
        Reason.PAUSED,
        Reason.PROVISIONAL_CAP,
        Reason.PICTURE_OUTAGE,
    }
)
"""Reasons that the score was not used: on the same content older model values stand, and the attribute is pending
again when what the reason rests on has changed."""


def stable_hash(*parts: Any) -> str:
    """Hex SHA-256 over the JSON of ``parts``: equal parts give equal hashes in every process and on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def make_run_id(kind: RunKind, *identity: Any) -> str:
    """Run id: the kind and 20 hex digits of the hash of kind and ``identity`` (contract `runs`)."""
    return f"{kind.value}-{stable_hash(kind.value, *identity)[:20]}"


def event_id(run_id: str, product_id: str, attribute: str, value: str, op: Op, refers_to: str = "") -> str:
    """Ledger event id: SHA-256 over ``length:text`` of each part, in order. Repeating a run repeats its ids.

    With the lengths (in characters) no two different events join to the same text; Spark SQL computes the same id.
    ``refers_to`` is a part because one run can retract the same value of several earlier runs.
    """
    parts = (run_id, product_id, attribute, value, op.value, refers_to)
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def strictly_later(now: datetime, newest: datetime | None) -> datetime:
    """``now``, or the first microsecond after ``newest`` if that is later; in UTC.

    Times that are made so are an order that a clock set back does not reverse.
    """
    now = now.astimezone(UTC)
    return now if newest is None else max(now, newest + timedelta(microseconds=1))


def add_counts(*counts: dict[str, int]) -> dict[str, int]:
    """The sum of the counters, name by name, sorted by name."""
    total: dict[str, int] = {}
    for counter in counts:
        for name, number in counter.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))


def flatten_keys(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one dict with dotted keys, as MLflow's params need them."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= flatten_keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
