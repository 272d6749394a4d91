"""The objects that the page's handlers share, its scaled pictures, and what a request is about and who sends it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Semaphore
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote_to_bytes

from PIL import Image

from catalog_enrichment.audit.page.guard import Guard, Role
from catalog_enrichment.audit.page.products import ProductReader
from catalog_enrichment.audit.review_records import Item, ReviewSample, agreement, person_name
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.inputs.images import first_usable
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.web.quotes import Evidence

if TYPE_CHECKING:
    from fastapi import Request

NAME_COOKIE, TOKEN_COOKIE = "audit_name", "audit_token"

T = TypeVar("T")

SIZE = 640
"""Pixels of a picture's side: sharp on a phone, and about 40 kB."""
QUALITY = 82
KEPT = 1_500
"""Scaled pictures that are kept in memory: about 60 MB."""
AT_ONCE = 2
"""Pictures that are decoded at the same time: a picture of 50 million pixels needs 150 MB."""
SLOW_AT_ONCE = 12
"""Requests for pictures and products that are worked on at the same time, of the 40 threads that all requests share."""


class NotFoundError(Exception):
    """Answered with status 404."""


class UnnamedError(Exception):
    """Answered with status 401: the request does not say who the person is."""


class NotAllowedError(Exception):
    """Answered with status 403: only a manager may do this."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG, or why there is none: exactly one of ``data`` and ``reason`` is empty."""

    data: bytes
    reason: str = ""


class _UnusableError(Exception):
    """A picture that cannot be shown; the message says why."""


class ScaledPictures:
    """Pictures by (uri, version) of the products table, opened by the rules and limits of scoring. For several
    threads."""

    def __init__(self, limits: ImagesConfig) -> None:
        """``limits``: with absolute folders (:meth:`Config.pictures`)."""
        self.limits = limits
        self._decoding = Semaphore(AT_ONCE)
        self._scaled = lru_cache(KEPT)(self._scale)

    def get(self, uri: str, version: str) -> Picture:
        """Return the picture in a white square of :data:`SIZE`. Never raises; after a failure it is tried again."""
        try:
            return Picture(self._scaled(uri, version))
        except _UnusableError as problem:
            return Picture(b"", str(problem))

    def _scale(self, uri: str, version: str) -> bytes:
        picture = {"bytes": None, "uri": uri, "version": version}
        decoded = first_usable([picture], Square(SIZE), self.limits, decoding=self._decoding)
        if decoded.pixels is None:
            raise _UnusableError(decoded.reason.value if decoded.reason else "no_image")
        sink = io.BytesIO()
        Image.fromarray(decoded.pixels).save(sink, format="JPEG", quality=QUALITY, optimize=True)
        return sink.getvalue()


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    store: ReviewStore
    dictionary: Dictionary
    pictures: ScaledPictures
    products: ProductReader
    guard: Guard
    slow: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOW_AT_ONCE))

    async def slowly(self, work: Callable[[], T]) -> T:
        """Return the result of ``work``, which waits for a picture's server or reads a table to its end.

        It runs in a thread, and never in so many that other requests would wait for a thread.
        """
        from fastapi.concurrency import run_in_threadpool

        async with self.slow:
            return await run_in_threadpool(work)

    def sample(self, sample_id: str) -> ReviewSample:
        """Return the sample. Raises NotFoundError."""
        try:
            return self.store.sample(sample_id)
        except DataContractError:
            raise NotFoundError(f"there is no sample {sample_id!r}") from None

    def item(self, item_id: str) -> Item:
        """Return the item. Raises NotFoundError."""
        try:
            return self.store.item(item_id)
        except DataContractError:
            raise NotFoundError(f"there is no item {item_id!r}") from None

    def product(self, product_id: str) -> dict[str, Any]:
        """Return the product's row. Raises NotFoundError."""
        if (found := self.products.product(product_id)) is None:
            raise NotFoundError(f"no product {product_id!r} in the catalog")
        return found

    def question(self, item: Item) -> dict[str, Any]:
        """Return what a reviewer is told about an item, without what other people or the model's score say about it.

        ``marked``: `title` or `description` -> its three parts, the second of which is the evidence; empty if neither
        has it. ``evidence``: then a sentence with the evidence, if there is any.
        """
        names = ("item_id", "product_id", "shop_id", "title", "description", "category", "language", "attribute",
                 "value")  # fmt: skip
        count = min(len(item.images), self.pictures.limits.max_per_product)
        pictures = [f"/pictures/{quote(item.item_id, safe='')}/{number}" for number in range(count)]
        shown = {name: getattr(item, name) for name in names}
        evidence = Evidence.of(item.evidence, item.title, item.description)
        quoted = {"marked": evidence.marked, "evidence": evidence.beside}
        return shown | {"cardinality": item.cardinality.value, "pictures": pictures} | quoted

    def values_of(self, attribute: str) -> dict[str, Any]:
        """Return an attribute's values with all their spellings. Raises DataContractError for an unknown attribute."""
        if attribute not in self.dictionary:
            raise DataContractError(f"no attribute {attribute!r} in the dictionary")
        found = self.dictionary[attribute]
        spellings: dict[str, list[list[str]]] = {value: [] for value in found.values}
        for language, aliases in sorted(found.aliases.items()):
            for spelling, value in aliases.items():
                spellings.setdefault(value, []).append([language, spelling])
        values = [{"value": value, "aliases": aliases} for value, aliases in spellings.items()]
        kind = {"kind": found.kind.value, "unit": found.number.unit if found.number else ""}
        return {"attribute": attribute, "cardinality": found.cardinality.value, "values": values} | kind

    def reading(self, attribute: str, text: str, language: str) -> dict[str, str]:
        """Return ``value``, what a typed text is stored as, or ``why`` it is no value; the other is empty. Raises
        DataContractError for an unknown attribute."""
        if attribute not in self.dictionary:
            raise DataContractError(f"no attribute {attribute!r} in the dictionary")
        found = self.dictionary[attribute]
        value = found.canonical(text, language)
        return {"value": value or "", "why": "" if value else found.why_not(text, language) or ""}

    def state_of(self, sample: ReviewSample, reviewer: str, shop_id: str = "") -> dict[str, Any]:
        """Return the progress of the person and of the sample, and the agreement of the reviewers."""
        progress = self.store.progress(sample.sample_id, reviewer, shop_id)
        found = agreement(self.store.verdicts(sample.sample_id))
        names = ("items", "open", "disputed", "settled", "mine", "left")
        return {
            "sample_id": sample.sample_id,
            "title": sample.title,
            "purpose": sample.purpose.value,
            "reviewers": sample.reviewers,
            "drawn_at": sample.drawn_at.isoformat(),
            **{name: getattr(progress, name) for name in names},
            "pairs": found.pairs,
            "agreement": found.raw,
            "kappa": found.kappa,
        }


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def role_of(request: Request) -> Role:
    """Return the role of the person who sent the request."""
    role: Role = request.state.role
    return role


def reviewer_of(request: Request, needed: bool = True) -> str:
    """Return the person's name.

    Raises UnnamedError where the request has no name and it is ``needed``, and DataContractError for what is no name.
    """
    given = request.headers.get("x-reviewer") or request.cookies.get(NAME_COOKIE, "")
    if not given:
        if needed:
            raise UnnamedError("say who you are first: the header X-Reviewer, or the name on the first page")
        return ""
    try:
        return person_name(unquote_to_bytes(given.encode("latin-1")).decode())
    except UnicodeDecodeError:
        raise DataContractError("the name in the header X-Reviewer is not in UTF-8, percent-encoded") from None
