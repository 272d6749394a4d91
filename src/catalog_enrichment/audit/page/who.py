"""Who sends a request, what it is about, and the errors that handlers answer with a status of their own."""

from __future__ import annotations

from urllib.parse import unquote

from fastapi import Request

from catalog_enrichment.audit.items import Item, Sample
from catalog_enrichment.audit.page.site import Site
from catalog_enrichment.audit.review_rows import plain_name
from catalog_enrichment.errors import DataContractError

NAME_COOKIE, TOKEN_COOKIE = "audit_name", "audit_token"
LONGEST_NAME = 80


class NotFoundError(Exception):
    """Answered with status 404."""


class UnnamedError(Exception):
    """Answered with status 401: the request does not say who the person is."""


def reviewer_of(request: Request, needed: bool = True) -> str:
    """The person's name. Raises UnnamedError where the request has none and one is ``needed``."""
    name = plain_name(unquote(request.headers.get("x-reviewer") or request.cookies.get(NAME_COOKIE, "")))
    if needed and not name:
        raise UnnamedError("say who you are first: the header X-Reviewer, or the name on the first page")
    return name[:LONGEST_NAME]


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def sample_of(site: Site, sample_id: str) -> Sample:
    """Raises NotFoundError."""
    try:
        return site.store.sample(sample_id)
    except DataContractError:
        raise NotFoundError(f"there is no sample {sample_id!r}") from None


def item_of(site: Site, item_id: str) -> Item:
    """Raises NotFoundError."""
    try:
        return site.store.item(item_id)
    except DataContractError:
        raise NotFoundError(f"there is no item {item_id!r}") from None
