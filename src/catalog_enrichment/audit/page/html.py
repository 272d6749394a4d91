"""The HTML pages for people. The templates escape every text."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from catalog_enrichment.audit.page.site import reviewer_of, site_of
from catalog_enrichment.audit.review_records import ChangeRequest, Purpose, RequestKind
from catalog_enrichment.web import pages as web_pages

APPLIED_BY = "apply_requests"
"""The job that does to the catalog what people ask for on the page."""

pages = APIRouter()


@pages.get("/")
def overview(request: Request) -> Response:
    """Return all samples: mine, settled, disputed, agreement."""
    site, name = site_of(request), reviewer_of(request, needed=False)
    samples = []
    for sample in site.store.samples():
        shops: list[str] = []
        if sample.purpose is Purpose.SUGGESTIONS:
            shops = sorted({item.shop_id for item in site.store.items(sample.sample_id)})
        samples.append(site.state_of(sample, name) | {"shops": shops})
    return _page(request, "overview.html.j2", samples=samples)


@pages.get("/sign-in")
def sign_in_page(request: Request) -> Response:
    return sign_in(request, 200)


def sign_in(request: Request, status: int) -> Response:
    """Return the page that asks for the server's token."""
    return _page(request, "sign_in.html.j2", status)


@pages.get("/samples/{sample_id}/review")
def review(request: Request, sample_id: str, shop: str = "") -> Response:
    return _judging(request, sample_id, "review", shop)


@pages.get("/samples/{sample_id}/adjudicate")
def adjudicate(request: Request, sample_id: str) -> Response:
    return _judging(request, sample_id, "adjudicate", "")


def _judging(request: Request, sample_id: str, mode: str, shop: str) -> Response:
    sample = site_of(request).sample(sample_id)
    if not reviewer_of(request, needed=False):
        return RedirectResponse("/", 303)
    answers_suggestions = sample.purpose is Purpose.SUGGESTIONS and mode == "review"
    kind = {"answers_suggestions": answers_suggestions, "asks_values": sample.purpose is Purpose.GOLD}
    return _page(request, "review.html.j2", sample=sample, mode=mode, shop=shop, **kind)


@pages.get("/products")
async def products(request: Request, q: str = "", product_id: str = "") -> Response:
    """Return one product, or the search for products."""
    return await site_of(request).slowly(lambda: _products(request, q, product_id))


def _products(request: Request, q: str, product_id: str) -> Response:
    site = site_of(request)
    if not product_id:
        found = site.products.search(q) if q.strip() else []
        if len(found) == 1 and found[0]["product_id"] == q.strip():
            product_id = q.strip()
        else:
            return _page(request, "products.html.j2", q=q, found=found)
    product = site.product(product_id)
    return _page(
        request,
        "product.html.j2",
        product=product,
        pictures=min(len(product["images"] or ()), site.pictures.limits.max_per_product),
        attributes=site.products.explained(product),
        requests=[request_in_words(asked) for asked in reversed(site.store.requests_about(product_id))],
    )


def request_in_words(asked: ChangeRequest) -> dict[str, Any]:
    """Return a request for people and programs: what, by whom, when, and what became of it."""
    values = ", ".join(asked.values)
    what = {
        RequestKind.SET: f"set {asked.attribute} to {values}" if values else f"remove {asked.attribute}",
        RequestKind.ACCEPT: f"accept {values} for {asked.attribute}",
        RequestKind.REFUSE: f"refuse {values} for {asked.attribute}",
        RequestKind.UNDO: f"undo what a person said about {asked.attribute}",
    }[asked.kind]
    names = ("request_id", "product_id", "attribute", "by", "reason", "outcome")
    return {name: getattr(asked, name) for name in names} | {
        "kind": asked.kind.value,
        "values": list(asked.values),
        "asked_at": asked.asked_at.isoformat(),
        "state": asked.state.value,
        "what": what,
    }


def _page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    given = values | {
        "reviewer": reviewer_of(request, needed=False),
        "applied_by": APPLIED_BY,
        "asks_token": site_of(request).guard.asks_token,
    }
    return HTMLResponse(web_pages.render("audit/page/templates", template, given), status)
