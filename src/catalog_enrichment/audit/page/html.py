"""The HTML pages. Every text is escaped by the templates; control characters are replaced, as in the reports."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from catalog_enrichment.audit.items import Purpose
from catalog_enrichment.audit.page.site import APPLIED_BY, Site, state_of
from catalog_enrichment.audit.page.who import NotFoundError, reviewer_of, sample_of, site_of
from catalog_enrichment.audit.review_requests import Request as Asked
from catalog_enrichment.audit.review_requests import RequestKind

if TYPE_CHECKING:
    from jinja2 import Environment

_REPLACED = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

pages = APIRouter()


@pages.get("/")
def overview(request: Request) -> Response:
    """All samples: mine, settled, disputed, agreement."""
    site, name = site_of(request), reviewer_of(request, needed=False)
    samples = []
    for sample in site.store.samples():
        shops: list[str] = []
        if sample.purpose is Purpose.SUGGESTIONS:
            shops = sorted({item.shop_id for item in site.store.items(sample.sample_id)})
        samples.append(state_of(site, sample, name) | {"shops": shops})
    return _page(request, "overview.html.j2", samples=samples)


@pages.get("/sign-in")
def sign_in_page(request: Request) -> Response:
    return sign_in(request, 200)


def sign_in(request: Request, status: int) -> Response:
    """The page that asks for the server's token."""
    return _page(request, "sign_in.html.j2", status)


@pages.get("/samples/{sample_id}/review")
def review(request: Request, sample_id: str, shop: str = "") -> Response:
    return _judging(request, sample_id, "review", shop)


@pages.get("/samples/{sample_id}/adjudicate")
def adjudicate(request: Request, sample_id: str) -> Response:
    return _judging(request, sample_id, "adjudicate", "")


def _judging(request: Request, sample_id: str, mode: str, shop: str) -> Response:
    site = site_of(request)
    sample = sample_of(site, sample_id)
    if not reviewer_of(request, needed=False):
        return RedirectResponse("/", 303)
    answers_suggestions = sample.purpose is Purpose.SUGGESTIONS and mode == "review"
    kind = {"answers_suggestions": answers_suggestions, "asks_values": sample.purpose is Purpose.GOLD}
    return _page(request, "review.html.j2", sample=sample, mode=mode, shop=shop, **kind)


@pages.get("/products")
def products(request: Request, q: str = "", product_id: str = "") -> Response:
    """One product, or the search for one."""
    site = site_of(request)
    if not product_id:
        found = site.products.search(q) if q.strip() else []
        if len(found) == 1 and found[0]["product_id"] == q.strip():
            product_id = q.strip()
        else:
            return _page(request, "products.html.j2", q=q, found=found)
    product = site.products.product(product_id)
    if product is None:
        raise NotFoundError(f"no product {product_id!r} in the catalog")
    pictures = min(len(product["images"] or ()), site.pictures.limits.max_per_product)
    return _page(
        request,
        "product.html.j2",
        product=product,
        pictures=pictures,
        attributes=site.products.explained(product),
        requests=[request_in_words(one) for one in reversed(site.store.requests_about(product_id))],
    )


def request_in_words(asked: Asked) -> dict[str, Any]:
    """A request for people and programs: what, by whom, when, and what became of it."""
    values = ", ".join(asked.values)
    what = {
        RequestKind.SET: f"set {asked.attribute} to {values}" if values else f"remove {asked.attribute}",
        RequestKind.ACCEPT: f"accept {values} for {asked.attribute}",
        RequestKind.REFUSE: f"refuse {values} for {asked.attribute}",
        RequestKind.UNDO: f"undo what a person said about {asked.attribute}",
    }[asked.kind]
    return {
        "request_id": asked.request_id,
        "kind": asked.kind.value,
        "product_id": asked.product_id,
        "attribute": asked.attribute,
        "values": list(asked.values),
        "by": asked.by,
        "reason": asked.reason,
        "asked_at": asked.asked_at.isoformat(),
        "state": asked.state.value,
        "outcome": asked.outcome,
        "what": what,
    }


def _page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    site: Site = site_of(request)
    given = values | {
        "reviewer": reviewer_of(request, needed=False),
        "applied_by": APPLIED_BY,
        "asks_token": bool(site.guard.token),
    }
    text = _environment().get_template(template).render(given).translate(_REPLACED)
    return HTMLResponse(text.encode("utf-8", errors="replace"), status)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    templates = files("catalog_enrichment") / "audit" / "page" / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, when=_when)
    return environment


def _percent(share: float | None) -> str:
    return "not known yet" if share is None else f"{share:.0%}"


def _when(time: datetime | str) -> str:
    """A time in UTC, to the minute."""
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
