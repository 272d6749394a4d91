"""What reviewers are asked and what they answer: the sampling writes items, the page shows them, the ingest reads them.

Items tell nothing about the score, the threshold or the stratum: a reviewer who sees them judges them, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from catalog_enrichment.records import Cardinality, stable_hash


class Purpose(StrEnum):
    """Why a sample was drawn."""

    AUDIT = "audit"
    """Written values: is the value right? Estimates of precision and alarms rest on these."""
    LABEL = "label"
    """Suggestions or abstentions: what is the right value? The answers become training labels."""
    SUGGESTIONS = "suggestions"
    """Suggestions to the manager of a shop, who accepts or refuses them."""
    GOLD = "gold"
    """Products without a merchant value, drawn uniformly: which value does each have, if any? The answers certify what
    models write for such products, and train nothing."""
    PROPOSALS = "proposals"
    """Proposals of one model version, drawn uniformly: is the value right? The answers certify the version's values."""


class Answer(StrEnum):
    YES = "yes"
    NO = "no"
    """The value is wrong; the right one is not said."""
    OTHER = "other"
    """The value is wrong, and ``right_values`` say what is right."""
    NONE = "none"
    """The product has no value of the attribute, as a perfume has no colour; a value that was asked about is wrong."""
    CANNOT_TELL = "cannot_tell"


class ItemState(StrEnum):
    OPEN = "open"
    """Fewer verdicts than the sample asks for."""
    DISPUTED = "disputed"
    """The verdicts differ: an adjudicator decides."""
    SETTLED = "settled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    sample_id: str
    purpose: Purpose
    drawn_at: datetime
    """UTC."""
    reviewers: int
    """Verdicts of different people that an item needs; where they differ, one more by an adjudicator."""
    title: str
    """For people: what was drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question: (product, attribute, value)."""

    item_id: str
    sample_id: str
    product_id: str
    shop_id: str
    title: str
    description: str
    category: str
    language: str
    images: tuple[tuple[str, str], ...]
    """(uri, version) of each picture, as in the products table; the uri is empty for one that travelled in the feed."""
    attribute: str
    cardinality: Cardinality
    value: str
    """The value asked about; empty: the model had none, the reviewer is asked for it."""

    @staticmethod
    def id_of(sample_id: str, product_id: str, attribute: str, value: str) -> str:
        return stable_hash(sample_id, product_id, attribute, value)[:32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one person said about one item; the newest of a person counts."""

    item_id: str
    reviewer: str
    answer: Answer
    right_values: tuple[str, ...] = ()
    """From the dictionary; only with :attr:`Answer.OTHER`."""
    adjudicates: bool = False
    """Said by an adjudicator: it settles the item, whatever the others said."""
    answered_at: datetime
    """UTC."""
    seconds: float
    """How long the person looked at the item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """An item and what its verdicts come to."""

    item: Item
    state: ItemState
    answer: Answer | None
    """None unless settled."""
    right_values: tuple[str, ...]
    reviewers: tuple[str, ...]
    """Everybody whose verdict counts, in order of time."""
    settled_at: datetime | None
