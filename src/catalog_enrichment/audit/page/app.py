"""The page's web server: HTML pages for people, and the JSON interface that these pages and other programs use.

The reviewer is named by the header ``X-Reviewer`` (percent-encoded) or the cookie that /api/name sets. Names are not
secrets: a person who has the token can give any name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, model_validator

from catalog_enrichment.audit import typed_values
from catalog_enrichment.audit.page import guard, html
from catalog_enrichment.audit.page.guard import Role, TooManyGuessesError
from catalog_enrichment.audit.page.site import (
    NAME_COOKIE,
    TOKEN_COOKIE,
    NotAllowedError,
    NotFoundError,
    Site,
    UnnamedError,
    reviewer_of,
    role_of,
    site_of,
)
from catalog_enrichment.audit.review_records import (
    Answer,
    ChangeRequest,
    ItemState,
    Purpose,
    RequestKind,
    Verdict,
    person_key,
    person_name,
    request_of,
)
from catalog_enrichment.errors import CatalogEnrichmentError, DataContractError, TemporaryFailure

STATIC = Path(__file__).parent / "static"
_DAYS_90 = 90 * 24 * 3600
_WITHOUT_TOKEN = ("/api/token", "/sign-in")
Number = Annotated[int, Field(ge=0, lt=2**63)]
"""A whole number that SQLite can hold."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_text(cls, given: Any) -> Any:
        """Refuse halves of surrogate pairs, which JSON can name and which neither SQLite nor an answer can hold."""
        try:
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text has half of a surrogate pair, which is no character") from None
        return given


class NameBody(_Body):
    name: str = Field(max_length=400)


class TokenBody(_Body):
    token: str = Field(max_length=400)


class VerdictBody(_Body):
    item_id: str
    answer: Answer
    right_values: list[str] = Field(default=[], max_length=100)
    adjudicates: bool = False
    seconds: float = Field(default=0.0, ge=0, le=86_400)


class UndoBody(_Body):
    adjudicates: bool = False


class RequestBody(_Body):
    kind: Literal["set", "undo"]
    product_id: str
    attribute: str
    values: list[str] = Field(default=[], max_length=100)
    run_id: str = ""
    reason: str = Field(default="", max_length=500)


api = APIRouter(prefix="/api")
files = APIRouter()


def create_app(site: Site) -> FastAPI:
    """Return the server of ``site``. Nothing is fetched from another server; there is no generated documentation."""
    app = FastAPI(title="catalog-enrichment review", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.site = site
    app.include_router(api)
    app.include_router(files)
    app.include_router(html.pages)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.middleware("http")(_guarded)
    app.add_exception_handler(CatalogEnrichmentError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    for kind in (NotAllowedError, NotFoundError, UnnamedError):
        app.add_exception_handler(kind, _refused)
    return app


async def _guarded(request: Request, serve: Callable[[Request], Awaitable[Response]]) -> Response:
    path = request.scope["path"]  # that is routed; the path of request.url may come from the Host header
    try:
        response = await _answer(request, path, serve)
    except TooManyGuessesError as problem:
        response = JSONResponse({"error": str(problem)}, 429, {"Retry-After": str(problem.seconds)})
    except Exception:
        logging.getLogger(__name__).exception("%s %s failed", request.method, path)
        response = JSONResponse({"error": "the server failed; its log says why"}, 500)
    for name, value in guard.HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-cache" if path.startswith("/static/") else "no-store")
    return response


async def _answer(request: Request, path: str, serve: Callable[[Request], Awaitable[Response]]) -> Response:
    site: Site = request.app.state.site
    headers = {name.lower(): value for name, value in request.headers.items()}
    if (refused := site.guard.refusal(request.method, headers)) is not None:
        return JSONResponse({"error": refused[1]}, refused[0])
    role = site.guard.role_of_session(request.cookies.get(TOKEN_COOKIE, ""))
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        role = max(role, site.guard.role_of_token(bearer.strip(), _address(request)))
    request.state.role = role
    if role is not Role.STRANGER or path in _WITHOUT_TOKEN or path.startswith("/static/"):
        return await serve(request)
    if path.startswith(("/api/", "/pictures/", "/product-pictures/")):
        return JSONResponse({"error": "this server asks for its token"}, 401)
    return html.sign_in(request, 401)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


_STATUSES: dict[type[Exception], int] = {
    TemporaryFailure: 503,
    NotFoundError: 404,
    NotAllowedError: 403,
    UnnamedError: 401,
}


def _refused(_: Request, problem: Exception) -> Response:
    status = next((status for kind, status in _STATUSES.items() if isinstance(problem, kind)), 422)
    return JSONResponse({"error": str(problem)}, status)


def _invalid(_: Request, problem: Exception) -> Response:
    errors = problem.errors() if isinstance(problem, RequestValidationError) else []
    wrong = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors)
    return JSONResponse({"error": f"the request is not understood: {wrong}"}, 422)


# --- who --------------------------------------------------------------------------------------------------------------


@api.post("/token")
async def give_token(request: Request, body: TokenBody) -> Response:  # async: guesses are counted by a single thread
    """Take the server's token, or the managers', and keep in a cookie that it was given."""
    site = site_of(request)
    role = site.guard.role_of_token(body.token, _address(request))
    if role is Role.STRANGER:
        return JSONResponse({"error": "this is not the server's token; serve_audit printed it when it started"}, 401)
    return _with_cookie(site, TOKEN_COOKIE, site.guard.sessions[role])


@api.post("/name")
def give_name(request: Request, body: NameBody) -> Response:
    """Take the person's name and keep it in a cookie."""
    return _with_cookie(site_of(request), NAME_COOKIE, quote(person_name(body.name)))


def _with_cookie(site: Site, name: str, value: str) -> Response:
    response = JSONResponse({"ok": True})
    response.set_cookie(name, value, max_age=_DAYS_90, httponly=True, samesite="strict", secure=site.guard.secure)
    return response


# --- samples and verdicts ---------------------------------------------------------------------------------------------


@api.get("/samples")
def samples(request: Request) -> list[dict[str, Any]]:
    """Return every sample with its progress, newest first."""
    site, name = site_of(request), reviewer_of(request, needed=False)
    return [site.state_of(sample, name) for sample in site.store.samples()]


@api.get("/samples/{sample_id}")
def sample(request: Request, sample_id: str, shop: str = "") -> dict[str, Any]:
    site, name = site_of(request), reviewer_of(request, needed=False)
    return site.state_of(site.sample(sample_id), name, shop)


@api.get("/samples/{sample_id}/next")
def next_questions(request: Request, sample_id: str, limit: int = 3, shop: str = "") -> dict[str, Any]:
    """Return the next questions for the person, in the order in which they are asked, and the progress."""
    site, name = site_of(request), reviewer_of(request)
    found = site.sample(sample_id)
    queue = site.store.queue(sample_id, name, max(1, min(limit, 50)), shop)
    return {"questions": [site.question(item) for item in queue], "state": site.state_of(found, name, shop)}


@api.get("/samples/{sample_id}/disputes")
def disputes(request: Request, sample_id: str) -> dict[str, Any]:
    """Return the disputed items with the verdicts; those that the person judged are left for another person."""
    site, name = site_of(request), reviewer_of(request)
    found = site.sample(sample_id)
    disputed = [outcome for outcome in site.store.outcomes(sample_id) if outcome.state is ItemState.DISPUTED]
    mine = [outcome for outcome in disputed if person_key(name) in map(person_key, outcome.reviewers)]
    verdicts = site.store.verdicts(sample_id)
    questions = [
        site.question(outcome.item) | {"verdicts": list(map(_plain, verdicts[outcome.item.item_id]))}
        for outcome in disputed
        if outcome not in mine
    ]
    return {"questions": questions, "for_others": len(mine), "state": site.state_of(found, name)}


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        "reviewer": verdict.reviewer,
        "answer": verdict.answer.value,
        "right_values": list(verdict.right_values),
        "adjudicates": verdict.adjudicates,
    }


@api.post("/verdicts")
def give_verdict(request: Request, body: VerdictBody) -> dict[str, Any]:
    """Keep the person's verdict; the same verdict sent again changes nothing."""
    site, name = site_of(request), reviewer_of(request)
    item, by_manager = site.item(body.item_id), role_of(request) is Role.MANAGER
    if body.adjudicates and site.guard.manager_token and not by_manager:
        raise NotAllowedError("only a manager adjudicates here: sign in with the managers' token")
    known = site.store.verdicts_of(item.item_id)
    right = typed_values.verdict_values(site.dictionary, item, body.right_values, name, known)
    verdict = Verdict(**body.model_dump() | {"right_values": right}, reviewer=name, answered_at=datetime.now(UTC))
    found = site.store.sample(item.sample_id)
    new = site.store.add_verdict(verdict, request_of(found, item, verdict), by_manager)
    return {"new": new, "right_values": list(right), "state": site.state_of(found, name)}


@api.post("/samples/{sample_id}/undo")
def undo(request: Request, sample_id: str, body: UndoBody) -> dict[str, Any]:
    """Withdraw the person's newest verdict in the sample, as a reviewer or as an adjudicator, and ask again.

    ``applied``: what a job has done by the answer to a suggestion, which stays so until there is another answer; else
    empty.
    """
    site, name = site_of(request), reviewer_of(request)
    found = site.sample(sample_id)
    if (verdict := site.store.newest_verdict(sample_id, name, body.adjudicates)) is None:
        raise DataContractError("there is no verdict of yours to take back")
    if found.purpose is Purpose.SUGGESTIONS:
        site.store.withdraw_answer(verdict.item_id, name)
    else:
        site.store.withdraw_verdict(verdict.item_id, name, by_manager=role_of(request) is Role.MANAGER)
    applied = site.store.applied_answers(verdict.item_id, name)
    return {
        "question": site.question(site.store.item(verdict.item_id)),
        "answer": verdict.answer.value,
        "applied": applied[-1].outcome if applied else "",
        "state": site.state_of(found, name),
    }


# --- values, pictures, requests ---------------------------------------------------------------------------------------


@api.get("/attributes/{attribute}")
def attribute_values(request: Request, attribute: str) -> dict[str, Any]:
    """Return the values of an attribute, with their spellings in all languages."""
    return site_of(request).values_of(attribute)


@api.get("/attributes/{attribute}/reading")
def reading(request: Request, attribute: str, text: str = "", language: str = "") -> dict[str, str]:
    """Return what a typed number or text is stored as in a product's language, or why it is no value."""
    return site_of(request).reading(attribute, text, language)


@api.get("/requests")
def requests(request: Request, product_id: str = "", after: Number = 0) -> list[dict[str, Any]]:
    """Return what people asked for; if a product is named, only about it."""
    store = site_of(request).store
    found = store.requests_about(product_id) if product_id else store.requests(after)
    return list(map(html.request_in_words, found))


@api.post("/requests")
async def ask(request: Request, body: RequestBody) -> dict[str, Any]:
    """Keep a request about a product; a job applies it later."""
    return await site_of(request).slowly(lambda: _asked(site_of(request), body, reviewer_of(request)))


def _asked(site: Site, body: RequestBody, name: str) -> dict[str, Any]:
    product = site.product(body.product_id)
    explained = site.products.explained(product)
    attribute = next((found for found in explained if found["attribute"] == body.attribute), None)
    if attribute is None:
        raise DataContractError(f"{body.attribute} does not apply to this product")
    if attribute["by_merchant"]:
        raise DataContractError(f"the merchant gives {body.attribute}: it is corrected in the merchant's feed")
    if body.kind == "undo" and (not body.run_id or body.run_id != attribute["undo_run"]):
        raise DataContractError("there is nothing of this run to undo any more; load the page again")
    if attribute["cardinality"] == "one" and len(body.values) > 1:
        raise DataContractError(f"{body.attribute} has one value per product")
    values = typed_values.stored_values(site.dictionary, body.attribute, body.values, product["language"] or "")
    asked = body.model_dump() | {"kind": RequestKind(body.kind), "values": values}
    request_id = site.store.add_request(ChangeRequest(**asked, by=name, asked_at=datetime.now(UTC)))
    return {"request_id": request_id, "applied_by": html.APPLIED_BY}


@api.delete("/requests/{request_id}")
def withdraw(request: Request, request_id: Number) -> dict[str, Any]:
    """Withdraw a request that still waits, and the answer to a suggestion that it came with."""
    site, name = site_of(request), reviewer_of(request)
    if not site.store.withdraw_request(request_id, name):
        raise DataContractError("this request does not wait any more; load the page again")
    return {"ok": True}


@files.get("/pictures/{item_id}/{number}")
async def picture(request: Request, item_id: str, number: Number) -> Response:
    """Return a picture of an item by its place; its file or address comes from the item and not from the request."""
    site = site_of(request)
    return await site.slowly(lambda: _picture(site, site.item(item_id).images, number))


@files.get("/product-pictures/{number}")
async def product_picture(request: Request, number: Number, product_id: str) -> Response:
    site = site_of(request)

    def read() -> Response:
        stored = site.product(product_id)["images"] or ()
        images = tuple((image["uri"] or "", image["version"] or "") for image in stored if image)
        return _picture(site, images, number)

    return await site.slowly(read)


def _picture(site: Site, images: tuple[tuple[str, str], ...], number: int) -> Response:
    if not 0 <= number < min(len(images), site.pictures.limits.max_per_product):
        raise NotFoundError("the product has no such picture")
    found = site.pictures.get(*images[number])
    if not found.data:
        return JSONResponse({"error": found.reason.replace("_", " ")}, 404, {"Cache-Control": "no-store"})
    return Response(found.data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
