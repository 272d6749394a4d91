"""One product on the page: what readers see, why, history, requests. Rows are written without Spark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.audit.apply_requests import apply_requests
from catalog_enrichment.audit.page.products import ProductReader, person_set
from catalog_enrichment.audit.review_records import RequestKind, RequestState
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.operations.explain import explain_value

from ...sample_catalog import SampleCatalog, table, values
from ..review_samples import asked
from ..review_server import Client
from .conftest import OpenPage

AT = datetime(2026, 3, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> shirt"


def _event(number: int, op: str, value: str, **changes: Any) -> dict[str, Any]:
    usual = {"event_id": f"e{number}", "op": op, "product_id": "a/b?c", "attribute": "color", "value": value}
    usual |= {"source": "human", "run_id": f"set_value-{number}", "reason": "set_by_person"}
    return usual | {"asserted_at": AT + timedelta(minutes=number)} | changes


def _run(number: int, kind: str, window: str | None, **changes: Any) -> dict[str, Any]:
    usual = {"run_id": f"set_value-{number}", "attempt": 1, "kind": kind, "status": "succeeded", "window": window}
    return usual | {"started_at": AT, "finished_at": AT + timedelta(minutes=number)} | changes


EVENTS = [
    _event(1, "assert", "Red", source="model", run_id="enrich-1", reason="certified", model_version="3"),
    _event(2, "assert", "Blue"),
]
QUOTING = _event(3, "assert", "Green", source="model", run_id="enrich-1", product_id="p3", evidence="GREEN <b>&")
RUNS = [_run(1, "enrich", None, run_id="enrich-1"), _run(2, "set_value", '{"by": "Mia", "reason": "seen it"}')]


@pytest.fixture
def catalog(site_config: Config) -> Iterator[Catalog]:
    catalog = Catalog(site_config.path("catalog"))
    product = {"product_id": "a/b?c", "title": HOSTILE, "shop_id": "s1", "opt_out": False, "content_hash": "c1"}
    given = {"product_id": "p2", "title": "A wool cap", "merchant_attributes": [("material", ["Wool"])]}
    found = {"product_id": "p3", "title": "Cap in green <b>& red", "opt_out": False, "content_hash": "c3"}
    catalog.append_rows("products", [product, given | {"opt_out": False, "content_hash": "c2"}, found], "import-1")
    catalog.append_rows("attribute_values", [*EVENTS, QUOTING], "enrich-1")
    current = {"product_id": "a/b?c", "attribute": "color", "values": ["Blue"], "source": "human"}
    merchants = {"product_id": "p2", "attribute": "material", "values": ["Wool"], "source": "merchant"}
    models = {"product_id": "p3", "attribute": "color", "values": ["Green"], "source": "model", "run_id": "enrich-1"}
    catalog.append_rows("current_values", [current | {"run_id": "set_value-2"}, merchants, models], "enrich-1")
    catalog.append_rows("runs", RUNS, "enrich-1")
    yield catalog
    shutil.rmtree(catalog.storage.folder)


def explained(config: Config, catalog: Catalog) -> list[dict[str, Any]]:
    products = ProductReader(catalog, load_dictionary(config), config.enrich)
    found = products.explained(products.product("a/b?c") or {})
    return [each for each in found if each["attribute"] != "width"]


def test_a_product_is_found_by_id_and_by_words(site_config: Config, catalog: Catalog) -> None:
    products = ProductReader(catalog, load_dictionary(site_config), site_config.enrich)
    assert [found["product_id"] for found in products.search("a/b?c")] == ["a/b?c"]
    assert [found["product_id"] for found in products.search("CAP wool")] == ["p2"]
    assert products.search("wool shirt") == []
    assert products.product("nosuch") is None


def test_what_a_person_said_is_explained_with_its_history(site_config: Config, catalog: Catalog) -> None:
    color, material = explained(site_config, catalog)
    assert (color["values"], color["undo_run"], color["said_by"]) == (["Blue"], "set_value-2", "Mia")
    assert color["seen"] == "Blue, by Mia, run set_value-2"
    assert "Mia: seen it" in color["why"]
    assert [(of["value"], of["by"]) for of in color["history"]] == [("Blue", "a person"), ("Red", "model version 3")]
    assert (material["values"], material["undo_run"]) == ([], "")


def test_the_page_of_a_product_says_what_in_the_text_a_value_rests_on(catalog: Catalog, ana: Client) -> None:
    _, _, body = ana.send("GET", "/products?product_id=p3")
    assert "The text says &#34;green &lt;b&gt;&amp;&#34;." in body.decode()
    assert "The text says" not in ana.send("GET", "/products?product_id=p2")[2].decode()


def test_the_page_of_a_product_takes_requests(catalog: Catalog, page_store: ReviewStore, ana: Client) -> None:
    status, _, body = ana.send("GET", "/products?product_id=a%2Fb%3Fc")
    assert (status, b"<script>alert" in body, b"&lt;script&gt;alert" in body) == (200, False, True)
    assert "Undo what Mia said" in body.decode()
    about = {"product_id": "a/b?c", "attribute": "color"}
    ana.post("/api/requests", {"kind": "set", "values": ["Red"], **about})
    undo = ana.post("/api/requests", {"kind": "undo", "run_id": "set_value-2", **about})
    kinds = [(of.kind, of.values, of.run_id, of.by) for of in page_store.requests_about("a/b?c")]
    assert kinds == [(RequestKind.SET, ("Red",), "", "Ana"), (RequestKind.UNDO, (), "set_value-2", "Ana")]
    assert b"Waits for apply_requests" in ana.send("GET", "/products?product_id=a%2Fb%3Fc")[2]
    assert ana.send("DELETE", f"/api/requests/{undo['request_id']}")[0] == 200
    assert ana.refused("DELETE", f"/api/requests/{undo['request_id']}")[0] == 422
    assert page_store.requests(state=RequestState.WITHDRAWN)[0].outcome == "taken back by Ana"
    waiting = len(page_store.requests(state=RequestState.WAITING))
    for wrong, message in (
        ({"kind": "undo", "run_id": "enrich-1", **about}, "nothing of this run to undo"),
        ({"kind": "undo", **about}, "nothing of this run to undo"),
        ({"kind": "set", "values": ["Mauve"], **about}, "'Mauve'"),
        ({"kind": "set", "values": ["Red", "Blue"], **about}, "one value per product"),
        ({"kind": "set", "values": ["Wool"], "product_id": "p2", "attribute": "material"}, "merchant's feed"),
        ({"kind": "set", "values": ["Red"], "product_id": "nosuch", "attribute": "color"}, "no product 'nosuch'"),
        ({"kind": "set", "values": ["Red"], "product_id": "p2", "attribute": "size"}, "does not apply"),
        ({"kind": "accept", "values": ["Red"], **about}, "not understood"),
    ):
        assert message in ana.refused("POST", "/api/requests", wrong)[1]
    assert len(page_store.requests(state=RequestState.WAITING)) == waiting
    assert ana.refused("GET", "/products?product_id=nosuch")[0] == 404
    assert ana.refused("GET", "/product-pictures/0?product_id=p2")[0] == 404


def test_the_set_of_a_person_is_none_while_it_is_retracted() -> None:
    retract = _event(3, "retract", "Blue", refers_to="e2", undoes="e2")
    reinstate = _event(4, "reinstate", "Blue", refers_to="e2", undoes="e3")
    events = [{"refers_to": None, "undoes": None} | event for event in (*EVENTS, retract, reinstate)]
    found = [person_set(events[:number], RUNS) for number in (1, 2, 3, 4)]
    assert [person and person.values for person in found] == [None, ("Blue",), None, ("Blue",)]


def test_that_there_is_no_value_can_be_undone(site_config: Config, catalog: Catalog) -> None:
    catalog.append_rows("attribute_values", [_event(5, "assert", "", attribute="material")], "set_value-5")
    catalog.append_rows("runs", [_run(5, "set_value", '{"by": "Mia"}')], "set_value-5")
    _, material = explained(site_config, catalog)
    assert (material["values"], material["undo_run"]) == ([], "set_value-5")
    assert material["seen"] == "no value, as Mia said in run set_value-5"
    assert material["history"][0]["value"] == "no value"


def test_the_history_names_what_a_rollback_undid_and_a_switch_that_is_off_is_told(
    site_config: Config, catalog: Catalog
) -> None:
    undo = _event(3, "retract", "Blue", run_id="rollback-1", refers_to="e2", undoes="e2", reason="rolled_back")
    catalog.append_rows("attribute_values", [undo], "rollback-1")
    off = Switch(scope=Scope.ATTRIBUTE, attribute="material", state=State.OFF, who="ann", why="wrong feed")
    switches.write(catalog, [off])
    color, material = explained(site_config, catalog)
    assert [of["undoing"] for of in color["history"]] == [
        ", which undoes run set_value-2", " (undone by run rollback-1)", "",
    ]  # fmt: skip
    assert material["why"].startswith("attribute material is switched off by ann (wrong feed)")


@pytest.mark.slow
def test_a_correction_on_the_page_of_a_product(catalog: Catalog, page_store: ReviewStore, open_page: OpenPage) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page("/products?product_id=a%2Fb%3Fc")
    page.get_by_role("button", name="Correct color").click()
    page.locator("[role=option]").first.wait_for()
    page.keyboard.type("dunkel")
    page.keyboard.press("Enter")
    page.locator(".requests li").wait_for()
    assert "set color to Navy Blue, by Ana" in page.locator(".requests li").inner_text()
    assert Axe().run(page).response["violations"] == []
    page.locator("[data-withdraw]").click()
    page.locator(".requests", has_text="Taken back").wait_for()
    assert [of.state for of in page_store.requests()] == [RequestState.WITHDRAWN]


@pytest.mark.slow
def test_the_page_says_what_explain_value_says_of_applied_requests(enriched: SampleCatalog, tmp_path: Path) -> None:
    context = enriched.context()
    seen = {(row["product_id"], row["attribute"]): row for row in table(enriched, "current_values")}
    corrected, removed = [key for key, row in sorted(seen.items()) if row["source"] == "model"][:2]
    merchants = next(key for key, row in sorted(seen.items()) if row["source"] == "merchant")

    with ReviewStore(tmp_path / "review.sqlite") as store:
        other = next(v for v in context.dictionary[corrected[1]].values if v not in seen[corrected]["values"])
        for request in (
            asked(RequestKind.SET, corrected, other),
            asked(RequestKind.SET, removed),
            asked(RequestKind.ACCEPT, merchants, context.dictionary[merchants[1]].values[0]),
            asked(RequestKind.REFUSE, corrected, "Red"),
        ):
            store.add_request(request)
        assert apply_requests(context, store)["requests"] == {"applied": 3, "refused": 1}
        assert apply_requests(context, store)["status"] == "nothing_to_do"
        assert "merchant" in store.requests(state=RequestState.REFUSED)[0].outcome
        products = ProductReader(Catalog(enriched.config.path("catalog")), context.dictionary, enriched.config.enrich)
        undo_run = _compared(context, products, (corrected, removed, merchants))[corrected]
        store.add_request(asked(RequestKind.UNDO, corrected, run_id=undo_run))
        assert apply_requests(context, store)["requests"] == {"applied": 1}
        _compared(context, products, (corrected, removed))
        assert values(enriched)[corrected] == tuple(seen[corrected]["values"])


def _compared(context: Any, products: ProductReader, keys: Any) -> dict[tuple[str, str], str]:
    """Compare page and explain_value; return the runs that the page offers to undo."""
    found = {}
    for product_id, attribute in keys:
        told = products.explained(products.product(product_id) or {})
        (on_page,) = (of for of in told if of["attribute"] == attribute)
        explained = explain_value(context, product_id, attribute)
        assert on_page["why"] == explained["why"]
        assert on_page["values"] == ((explained["current"] or {}).get("values") or [])
        assert len(on_page["history"]) == len(explained["history"])
        found[product_id, attribute] = on_page["undo_run"]
    return found
