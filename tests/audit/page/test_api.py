"""The JSON interface: blind questions, verdicts of two people, adjudication, undo, what is refused."""

from __future__ import annotations

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from catalog_enrichment.audit import label_studio
from catalog_enrichment.audit.page.site import Picture, ScaledPictures
from catalog_enrichment.audit.review_records import Answer, ItemState, Purpose, RequestKind, RequestState
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.records import Cardinality

from ..review_samples import item, outcome, sample, verdict
from ..review_server import Client

ONE, TWO = item(1), item(2)
SOON = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def store(page_store: ReviewStore) -> ReviewStore:
    page_store.add_sample(sample(), [ONE, TWO])
    return page_store


def _body(of, answer: str = "yes", *right: str, **more: object) -> dict[str, object]:  # type: ignore[no-untyped-def]
    return {"item_id": of.item_id, "answer": answer, "right_values": list(right), "seconds": 1.5, **more}


def test_a_question_tells_nothing_that_a_reviewer_must_not_know(store: ReviewStore, ana: Client, ben: Client) -> None:
    ben.post("/api/verdicts", _body(ONE, "no"))
    questions = ana.get("/api/samples/s1/next?limit=9")["questions"]
    assert [asked["item_id"] for asked in questions] == [ONE.item_id, TWO.item_id]  # what Ben has begun comes first
    assert set(questions[0]) == {
        *("item_id", "product_id", "shop_id", "title", "description", "category", "language", "attribute"),
        *("cardinality", "value", "pictures", "marked", "evidence"),
    }
    assert questions[0]["title"] == "Shirt number 1"
    assert questions[0]["pictures"] == [f"/pictures/{ONE.item_id}/0"]


HOSTILE = ("<script>a & b</script> ", "<b>Red</b> & &amp; <script>", ' & <img src=x onerror="a">')
"""A text before a quote, the quote, and the text after it."""


def test_a_question_has_the_texts_with_the_evidence_apart(page_store: ReviewStore, ana: Client) -> None:
    text, quote = "".join(HOSTILE), HOSTILE[1]
    items = [
        item(1, title=text, description=text, evidence=quote),
        item(2, title="A shirt", description=text, evidence=quote),
        item(3, evidence=quote),
        item(4),
    ]
    page_store.add_sample(sample(), items)
    questions = {asked["product_id"]: asked for asked in ana.get("/api/samples/s1/next?limit=9")["questions"]}
    assert {name: (asked["marked"], asked["evidence"]) for name, asked in questions.items()} == {
        "p001": ({"title": list(HOSTILE)}, ""),
        "p002": ({"description": list(HOSTILE)}, ""),
        "p003": ({}, f'The model gives as evidence "{quote}".'),
        "p004": ({}, ""),
    }


def test_two_reviewers_and_an_adjudicator_settle_a_sample(store: ReviewStore, ana: Client, ben: Client) -> None:
    eve = Client(ana.port, "Éve Müller")
    for client, answers in ((ana, ("yes", "yes")), (ben, ("no", "yes"))):
        for of, answer in zip((ONE, TWO), answers, strict=True):
            assert client.post("/api/verdicts", _body(of, answer))["new"]
    assert not ana.post("/api/verdicts", _body(ONE, "yes"))["new"]
    state = ana.get("/api/samples/s1")
    assert (state["settled"], state["disputed"], state["open"], state["mine"], state["left"]) == (1, 1, 0, 2, 0)
    assert (state["pairs"], state["agreement"]) == (2, 0.5)
    assert state["kappa"] == pytest.approx((0.5 - 0.625) / 0.375)
    mine = ana.get("/api/samples/s1/disputes")
    assert (mine["questions"], mine["for_others"]) == ([], 1)
    (disputed,) = eve.get("/api/samples/s1/disputes")["questions"]
    assert [(of["reviewer"], of["answer"]) for of in disputed["verdicts"]] == [("Ana", "yes"), ("Ben", "no")]
    assert eve.post("/api/verdicts", _body(ONE, "other", "Navy Blue", adjudicates=True))["state"]["settled"] == 2
    settled = outcome(store, ONE)
    assert (settled.answer, settled.right_values) == (Answer.OTHER, ("Navy Blue",))
    assert settled.reviewers == ("Ana", "Ben", "Éve Müller")
    again = eve.post("/api/samples/s1/undo", {"adjudicates": True})
    assert again["question"]["item_id"] == ONE.item_id
    assert outcome(store, ONE).state is ItemState.DISPUTED


def test_that_there_is_no_value_settles_a_gold_item_and_no_does_not(page_store: ReviewStore, ana: Client) -> None:
    asked = item(1, value="")
    page_store.add_sample(sample(purpose=Purpose.GOLD, reviewers=1), [asked])
    page = ana.send("GET", "/samples/s1/review")[2].decode()
    assert 'data-gold="yes"' in page
    status, message = ana.refused("POST", "/api/verdicts", _body(asked, "no"))
    assert (status, "of a gold sample" in message) == (422, True)
    assert ana.post("/api/verdicts", _body(asked, "none"))["state"]["settled"] == 1
    assert outcome(page_store, asked).answer is Answer.NONE


def test_undo_gives_the_question_again(store: ReviewStore, ana: Client) -> None:
    ana.post("/api/verdicts", _body(TWO, "no"))
    ana.post("/api/verdicts", _body(ONE, "no"))
    undone = ana.post("/api/samples/s1/undo", {})
    assert (undone["question"]["item_id"], undone["answer"], undone["state"]["mine"]) == (ONE.item_id, "no", 1)
    ana.post("/api/samples/s1/undo", {})
    assert ana.refused("POST", "/api/samples/s1/undo") == (422, "there is no verdict of yours to take back")


def test_a_number_is_read_as_it_is_typed(page_store: ReviewStore, ana: Client) -> None:
    asked = item(7, "s7", attribute="width", value="50 cm", evidence="50 cm")
    page_store.add_sample(sample("s7"), [asked])
    assert ana.get("/api/attributes/width") == {
        **{"attribute": "width", "cardinality": "one", "values": [], "kind": "number", "unit": "cm"},
    }
    status, message = ana.refused("POST", "/api/verdicts", _body(asked, "other", "5 kg"))
    assert (status, "cannot be converted" in message) == (422, True)
    ana.post("/api/verdicts", _body(asked, "other", "510 mm"))
    [verdict] = page_store.verdicts("s7")[asked.item_id]
    assert verdict.right_values == ("51 cm",)


def test_a_typed_number_is_read_in_the_products_language(page_store: ReviewStore, ana: Client) -> None:
    asked = item(7, "s7", attribute="width", value="50 cm", language="de-AT")
    page_store.add_sample(sample("s7"), [asked])
    answer = ana.post("/api/verdicts", _body(asked, "other", "1.299 mm"))
    assert answer["right_values"] == ["129.9 cm"]
    [verdict] = page_store.verdicts("s7")[asked.item_id]
    assert verdict.right_values == ("129.9 cm",)


def test_what_a_typed_text_is_kept_as(store: ReviewStore, ana: Client) -> None:
    path = "/api/attributes/width/reading?text="
    assert ana.get(f"{path}1.299%20mm&language=de") == {"value": "129.9 cm", "why": ""}
    assert ana.get(f"{path}1.299%20m") == {"value": "129.9 cm", "why": ""}
    assert ana.get(f"{path}12-15%20cm") == {"value": "", "why": "it has several numbers"}
    assert ana.get(path) == {"value": "", "why": "it says nothing"}
    assert ana.refused("GET", "/api/attributes/height/reading?text=5")[0] == 422


def test_the_same_number_in_another_spelling_is_no_other_value(
    page_store: ReviewStore, ana: Client, ben: Client
) -> None:
    asked = item(7, "s7", attribute="width", value="109 cm")
    page_store.add_sample(sample("s7", reviewers=2), [asked])
    for typed in ("1.09 m", "109.9", "43 in"):
        status, message = ana.refused("POST", "/api/verdicts", _body(asked, "other", typed))
        assert (status, "and 109 cm are the same value of width" in message) == (422, True)
    ana.post("/api/verdicts", _body(asked, "other", "1.2 m"))
    ana.post("/api/verdicts", _body(asked, "other", "1.205 m"))
    ben.post("/api/verdicts", _body(asked, "other", "120 cm"))
    [outcome] = page_store.outcomes("s7")
    assert (outcome.state, outcome.right_values) == (ItemState.SETTLED, ("120.5 cm",)), "they agree"


def test_what_is_refused_says_why(store: ReviewStore, ana: Client) -> None:
    nobody = Client(ana.port)
    assert nobody.refused("GET", "/api/samples/s1/next")[0] == 401
    assert nobody.refused("POST", "/api/verdicts", _body(ONE))[0] == 401
    assert ana.refused("GET", "/api/samples/nosuch") == (404, "there is no sample 'nosuch'")
    assert ana.refused("POST", "/api/verdicts", _body(item(9)))[0] == 404
    status, message = ana.refused("POST", "/api/verdicts", _body(ONE, "other", "Mauve"))
    assert (status, "'Mauve'" in message) == (422, True)
    assert ana.refused("POST", "/api/verdicts", _body(ONE, "perhaps"))[0] == 422
    assert ana.refused("POST", "/api/verdicts", _body(ONE) | {"score": 1})[0] == 422
    assert ana.refused("POST", "/api/verdicts", b"{")[0] == 422
    assert "nothing to adjudicate" in ana.refused("POST", "/api/verdicts", _body(ONE, adjudicates=True))[1]
    assert ana.refused("POST", "/api/name", {"name": " \u200b"})[0] == 422
    assert store.verdicts("s1") == {}


def test_a_name_is_kept_in_a_cookie_that_scripts_cannot_read(store: ReviewStore, ana: Client) -> None:
    status, headers, _ = Client(ana.port).send("POST", "/api/name", {"name": "  Zoë  O'Neil "})
    cookie = headers["set-cookie"]
    assert (status, cookie.split(";")[0]) == (200, "audit_name=Zo%C3%AB%20O%27Neil")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    named = Client(ana.port, headers={"Cookie": cookie.split(";")[0]})
    named.post("/api/verdicts", _body(ONE))
    assert outcome(store, ONE).reviewers == ("Zoë O'Neil",)


def test_values_come_with_their_spellings_in_all_languages(store: ReviewStore, ana: Client) -> None:
    content = ana.get("/api/attributes/color")
    assert (content["cardinality"], len(content["values"])) == ("one", 304)
    assert content["values"][3] == {"value": "Navy Blue", "aliases": [["de", "Dunkelblau"], ["fr", "bleu foncé"]]}
    assert ana.refused("GET", "/api/attributes/nosuch")[0] == 422


def test_pictures_are_scaled_or_say_why(site_config: Config, page_store: ReviewStore, ana: Client) -> None:
    root = Path(site_config.root)
    files = [str(root / name) for name in ("feed/3.jpg", "feed/nosuch.jpg", "attributes.json")]
    pictured = item(5, images=(*((uri, "1") for uri in (*files, "ftp://host/1.jpg")), ("", "0" * 64)))
    page_store.add_sample(sample(), [pictured])
    status, headers, data = ana.send("GET", f"/pictures/{pictured.item_id}/0")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (640, 640)
        assert all(abs(a - b) < 8 for a, b in zip(image.getpixel((320, 320)), (120, 135, 90), strict=True))  # type: ignore[arg-type]
    reasons = [ana.refused("GET", f"/pictures/{pictured.item_id}/{number}") for number in range(1, 6)]
    assert reasons == [
        (404, "image missing"),
        (404, "image not allowed"),
        (404, "image not allowed"),
        (404, "image missing"),
        (404, "the product has no such picture"),
    ]
    assert ana.refused("GET", "/pictures/nosuch/0")[0] == 404
    assert ana.refused("GET", f"/pictures/{pictured.item_id}/-1")[0] == 422
    outside = ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py", "/pictures/../../etc/passwd/0")
    for path in outside:
        assert ana.send("GET", path)[0] == 404


def test_an_answer_to_a_suggestion_asks_for_a_change(page_store: ReviewStore, ana: Client) -> None:
    many = item(3, attribute="material", cardinality=Cardinality.MANY, value="Wool", images=())
    page_store.add_sample(sample(purpose=Purpose.SUGGESTIONS, reviewers=1), [ONE, TWO, many])
    assert {of["shop_id"] for of in ana.get("/api/samples/s1/next?limit=9&shop=shop-1")["questions"]} == {"shop-1"}
    assert ana.get("/api/samples/s1?shop=shop-0")["items"] == 1
    ana.post("/api/verdicts", _body(ONE, "yes"))
    ana.post("/api/verdicts", _body(TWO, "no"))
    ana.post("/api/verdicts", _body(many, "other", "Silk", "Cotton"))
    kinds = [(asked.kind, asked.values, asked.by, asked.product_id) for asked in page_store.requests()]
    assert kinds == [
        (RequestKind.ACCEPT, ("Red",), "Ana", "p001"),
        (RequestKind.REFUSE, ("Red",), "Ana", "p002"),
        (RequestKind.SET, ("Silk", "Cotton"), "Ana", "p003"),
    ]
    ana.post("/api/samples/s1/undo")
    ana.post("/api/verdicts", _body(many, "cannot_tell"))
    assert [asked.state for asked in page_store.requests()] == [*[RequestState.WAITING] * 2, RequestState.WITHDRAWN]
    assert [asked["what"] for asked in ana.get("/api/requests")][:2] == ["accept Red for color", "refuse Red for color"]


def test_an_answer_withdrawn_on_the_products_page_is_asked_again(page_store: ReviewStore, ana: Client) -> None:
    page_store.add_sample(sample(purpose=Purpose.SUGGESTIONS, reviewers=1), [ONE, TWO])
    ana.post("/api/verdicts", _body(ONE, "yes"))
    ana.post("/api/verdicts", _body(ONE, "no"))
    (_, waiting) = page_store.requests()
    ana.send("DELETE", f"/api/requests/{waiting.request_id}")
    assert page_store.verdicts_of(ONE.item_id) == [], "the first answer has no request any more, either"
    assert ONE.item_id in {of["item_id"] for of in ana.get("/api/samples/s1/next?limit=9")["questions"]}
    assert ana.refused("DELETE", f"/api/requests/{waiting.request_id}")[0] == 422


def test_undo_says_that_the_answer_was_applied_already(page_store: ReviewStore, ana: Client) -> None:
    page_store.add_sample(sample(purpose=Purpose.SUGGESTIONS, reviewers=1), [ONE])
    ana.post("/api/verdicts", _body(ONE, "yes"))
    (accept,) = page_store.requests()
    page_store.mark_applied(accept.request_id, "color is Red, by run r1", SOON, run_id="r1")
    (applied,) = page_store.applied_answers(ONE.item_id, "ana")
    assert applied.run_id == "r1"
    ana.post("/api/verdicts", _body(ONE, "no"))
    undone = ana.post("/api/samples/s1/undo", {})
    assert (undone["answer"], undone["applied"]) == ("no", "color is Red, by run r1")
    (counts,) = page_store.verdicts_of(ONE.item_id)
    assert counts.answer is Answer.YES, "what was applied is what the person has said"
    assert page_store.applied_answers(ONE.item_id, "Ben") == []


def test_no_answer_about_other_samples_asks_for_a_change(store: ReviewStore, ana: Client) -> None:
    ana.post("/api/verdicts", _body(ONE, "no"))
    assert store.requests() == []


def test_the_pages_escape_what_merchants_wrote(page_store: ReviewStore, ana: Client) -> None:
    hostile = "<script>alert(1)</script>\x07&quot;"
    page_store.add_sample(sample("s<b>", title=hostile), [item(1, "s<b>")])
    page_store.add_verdict(verdict(item(1, "s<b>"), hostile[:40]))
    for path in ("/", "/samples/s%3Cb%3E/review", "/products?q=%3Cscript%3E"):
        status, headers, body = ana.send("GET", path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"<script>" not in body
        assert b"\x07" not in body
    assert b"&lt;script&gt;alert(1)" in ana.send("GET", "/")[2]


def test_the_interface_is_described_and_only_by_this_server(store: ReviewStore, ana: Client) -> None:
    paths = ana.get("/api/openapi.json")["paths"]
    assert {"/api/verdicts", "/api/samples/{sample_id}/next", "/api/samples/{sample_id}/disputes"} <= set(paths)
    assert ana.send("GET", "/docs")[0] == 404
    assert json.dumps(paths)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/api/requests?after={10**30}", None),
        ("GET", f"/api/requests?after=-{10**30}", None),
        ("DELETE", f"/api/requests/{2**63}", {}),
        ("GET", f"/pictures/{ONE.item_id}/{10**30}", None),
        ("GET", f"/product-pictures/{10**30}?product_id=p001", None),
        ("POST", "/api/verdicts", b'{"item_id": "\\ud800", "answer": "yes"}'),
        ("POST", "/api/verdicts", b'{"item_id": "x", "answer": "other", "right_values": ["\\udfff"]}'),
        ("POST", "/api/verdicts", b'{"\\ud800": 1}'),
        ("POST", "/api/verdicts", _body(ONE) | {"seconds": 10**400}),
        ("POST", "/api/verdicts", b'{"item_id": "x", "answer": "yes", "seconds": 1e999}'),
        ("POST", "/api/verdicts", b'{"item_id": "x", "answer": "yes", "seconds": ' + b"9" * 5000 + b"}"),
        ("POST", "/api/verdicts", b"[" * 30_000 + b"]" * 30_000),
        ("POST", "/api/token", b'{"token": "\\ud800"}'),
        ("POST", "/api/name", b'{"name": "\\ud800"}'),
        ("POST", "/api/samples/s1/undo", b'{"\\ud800": true}'),
        ("POST", "/api/requests", b'{"kind": "set", "product_id": "\\ud800", "attribute": "color"}'),
        ("POST", "/api/requests", b'{"kind": "set", "product_id": "p", "attribute": "color", "reason": "\\ud800"}'),
    ],
)
def test_numbers_and_texts_that_cannot_be_kept_are_refused(
    store: ReviewStore, ana: Client, method: str, path: str, body: object
) -> None:
    status, headers, _ = ana.send(method, path, body)
    assert status in (400, 422)
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert store.verdicts("s1") == {}
    assert store.requests() == []


def test_a_bug_is_answered_with_the_headers_of_every_answer(
    store: ReviewStore, ana: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: ReviewStore) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(ReviewStore, "samples", fails)
    status, headers, body = ana.send("GET", "/api/samples")
    assert (status, json.loads(body)) == (500, {"error": "the server failed; its log says why"})
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "a secret detail" in caplog.text


def test_a_third_verdict_and_another_adjudicator_change_nothing(store: ReviewStore, ana: Client, ben: Client) -> None:
    for client in (ana, ben):
        client.post("/api/verdicts", _body(ONE))
    for name in ("Eve", "ana\u200b ", "\ufeffBen"):
        someone = Client(ana.port, name)
        for answer, adjudicates in (("no", False), ("no", True), ("yes", False)):
            sent = {"answer": answer, "adjudicates": adjudicates}
            if name == "Eve":
                assert "is settled by now" in someone.refused("POST", "/api/verdicts", _body(ONE) | sent)[1]
            elif adjudicates:
                assert "judged the item" in someone.refused("POST", "/api/verdicts", _body(ONE) | sent)[1]
            elif answer == "yes":
                assert not someone.post("/api/verdicts", _body(ONE) | sent)["new"], "the same person, the same verdict"
    assert outcome(store, ONE).reviewers == ("Ana", "Ben")
    assert outcome(store, ONE).answer is Answer.YES


@pytest.mark.parametrize(
    "spelled",
    ["Zoë O'Neil", "zoe\u0308 O'Neil", " ZOË  O'NEIL\u200b", "Z\u00adoë\u2060 O'Neil", "Zo\u034fë O'Neil\u3164"],
)
def test_a_person_is_the_same_by_header_cookie_and_file(
    store: ReviewStore, site_config: Config, tmp_path: Path, ana: Client, spelled: str
) -> None:
    store.add_verdict(verdict(ONE, "Zoë O'Neil"))
    store.add_verdict(verdict(ONE, "Ben", Answer.NO))
    by_header = Client(ana.port, spelled)
    _, headers, _ = Client(ana.port).send("POST", "/api/name", {"name": spelled})
    by_cookie = Client(ana.port, headers={"Cookie": headers["set-cookie"].split(";")[0]})
    in_utf8 = Client(ana.port, headers={"X-Reviewer": spelled.encode().decode("latin-1")})
    for client in (by_header, by_cookie, in_utf8):
        assert "judged the item" in client.refused("POST", "/api/verdicts", _body(ONE, adjudicates=True))[1]
        assert client.get("/api/samples/s1")["mine"] == 1
    chosen = {"from_name": "answer", "type": "choices", "value": {"choices": ["no"]}}
    by = {"id": 1, "email": spelled}
    annotation = {"completed_by": by, "result": [chosen], "created_at": datetime.now(UTC).isoformat()}
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{"data": {"item_id": ONE.item_id}, "annotations": [annotation]}]))
    summary = label_studio.import_results(store, load_dictionary(site_config), file)
    assert summary["annotations"] == {"added": 1}
    assert [given.answer for given in store.verdicts_of(ONE.item_id)] == [Answer.NO, Answer.NO], "no third person"


def test_slow_pictures_leave_threads_for_everything_else(
    page_store: ReviewStore, ana: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_store.add_sample(sample(), [ONE])
    answered = Event()

    def slow(_: ScaledPictures, uri: str, version: str) -> Picture:
        answered.wait(30)
        return Picture(b"", "image_timeout")

    monkeypatch.setattr(ScaledPictures, "get", slow)
    with ThreadPoolExecutor(60) as threads:
        pictures = [threads.submit(ana.send, "GET", f"/pictures/{ONE.item_id}/0") for _ in range(60)]
        time.sleep(1)
        try:
            began = time.monotonic()
            assert len(ana.get("/api/samples")) == 1
            assert time.monotonic() - began < 5
            assert not any(picture.done() for picture in pictures)
        finally:
            answered.set()
        assert {picture.result()[0] for picture in pictures} == {404}
