"""Rows of a shop's export as rows of products, without Spark."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.ingest.shop_rows import RowPlan, pairs_in, product_rows


def rows_of(*rows: dict[str, str | None], **plan: Any) -> list[tuple[dict[str, str | None], int, int]]:
    made = product_rows(enumerate(rows), RowPlan(id_selectors=("id", "no:{no}"), **plan))
    return [(row.cells, row.number, row.rows) for row in made]


def test_rows_of_one_id_are_one_product_wherever_they_are() -> None:
    collected = frozenset({"color"})
    rows = rows_of(
        {"id": "a", "title": None, "color": "Red"},
        {"id": "b", "title": "B", "color": None},
        {"id": "a", "title": "A", "color": "Blue"},
        {"id": "a", "title": "another", "color": "Red"},
        same_id=True,
        collected=collected,
    )
    assert rows == [
        ({"id": "a", "title": "A", "color": '["Red", "Blue"]'}, 0, 3),
        ({"id": "b", "title": "B", "color": None}, 1, 1),
    ]


def test_rows_without_an_id_are_not_merged() -> None:
    assert len(rows_of({"id": None, "no": None}, {"id": " ", "no": ""}, {"id": "a"}, same_id=True)) == 3


def test_a_variant_is_part_of_its_parent_which_may_come_later() -> None:
    rows = rows_of(
        {"id": "v1", "no": "5", "parent": "no:1", "title": "Shirt, red", "color": "Red"},
        {"id": "", "no": "1", "parent": "", "title": "Shirt", "color": "Blue"},
        {"id": "v2", "no": "6", "parent": "no:9", "title": "Orphan", "color": "Red"},
        parent="parent",
        collected=frozenset({"color"}),
    )
    assert [(cells["id"], cells["no"], cells["title"], cells["color"]) for cells, _, _ in rows] == [
        (None, "1", "Shirt", '["Blue", "Red"]'),
        ("v2", "6", "Orphan", "Red"),
    ]
    assert [count for _, _, count in rows] == [2, 1]


def test_rows_of_another_kind_belong_to_the_product_above_them() -> None:
    kinds = [("1", "Product"), ("8", " sku"), ("2", "product"), ("9", "Rule"), ("9", "SKU")]
    rows = rows_of(
        *({"id": number, "kind": kind} for number, kind in kinds), kind="kind", product_kinds=frozenset({"product"})
    )
    assert [(cells["id"], count) for cells, _, count in rows] == [("1", 2), ("2", 3)]


def test_a_row_above_the_first_product_is_a_product_itself() -> None:
    plan: dict[str, Any] = {"kind": "kind", "product_kinds": frozenset({"product"})}
    above: list[dict[str, str | None]] = [{"id": name, "kind": "SKU"} for name in "xy"]
    assert [count for _, _, count in rows_of(*above, {"id": "1", "kind": "Product"}, **plan)] == [2, 1]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("color=Black,size=M", {"color": ["Black"], "size": ["M"]}),
        ("n=0,care=Wash, then dry,sizes=S|M", {"n": ["0"], "care": ["Wash, then dry"], "sizes": ["S", "M"]}),
        ('note="a, b",size=M', {"note": ["a, b"], "size": ["M"]}),
        ("Farbe: Rot; Material: Holz", {"Farbe": ["Rot"], "Material": ["Holz"]}),
        ("Color: Red | Size: M", {"Color": ["Red"], "Size": ["M"]}),
        ("Color: Red\nFit: slim, long", {"Color": ["Red"], "Fit": ["slim, long"]}),
        ("Color: Red, Size: M", {"Color": ["Red"], "Size": ["M"]}),
        ('{"Color": "Red", "Sizes": ["S", "M"], "x": null}', {"Color": ["Red"], "Sizes": ["S", "M"]}),
        ('{"n": 3, "m": {"inner": 1}}', {"n": ["3"]}),
        ("{'Color': 'Red'}", {"Color": ["Red"]}),
        ('[{"name": "Color", "value": "Red"}, {"name": "Size", "value": "M"}]', {"Color": ["Red"], "Size": ["M"]}),
        ('{"spec"=>[{"key"=>"Color", "value"=>"Red"}, {"value"=>"no key"}]}', {"Color": ["Red"]}),
        ('[{"Fabric": "Wool"}, {"Color": "Red"}]', {"Fabric": ["Wool"], "Color": ["Red"]}),
        ('[{"name": "Color", "options": ["Red", "Blue"]}]', {"Color": ["Red", "Blue"]}),
        ("Color:Red|Material:Wool", {"Color": ["Red"], "Material": ["Wool"]}),
        ("Colour:Red:1,Size:L:2", {"Colour": ["Red"], "Size": ["L"]}),
        ("Format: 16:9", {"Format": ["16:9"]}),
        ("<ul><li>Color: Red</li><li>Fit: slim &amp; long</li></ul>", {"Color": ["Red"], "Fit": ["slim & long"]}),
        ("Type=Swatch|Name=Color|Value=Red[#f00]Type=Rectangle|Name=Size|Value=S", {"Color": ["Red"], "Size": ["S"]}),
        ('"care=wash, dry",color=Red', {"care": ["wash, dry"], "color": ["Red"]}),
        ("https://shop.example/a:b", {}),
        ("A red shirt of cotton", {}),
        ("https://shop.example/a?b=c", {}),
        ("", {}),
        ("[1, 2]", {}),
        ('{"broken', {}),
    ],
)  # fmt: skip
def test_pairs_are_found_in_a_text(text: str, pairs: dict[str, list[str]]) -> None:
    assert pairs_in(text) == pairs


def test_keys_become_columns_and_what_shopify_writes_for_no_variant_does_not() -> None:
    plan: dict[str, Any] = {
        "same_id": True,
        "pair_columns": (("Option1 Name", "Option1 Value"),),
        "pair_texts": ("more",),
    }
    rows = rows_of(
        {"id": "a", "Option1 Name": "Color", "Option1 Value": "Red", "more": "fit=slim"},
        {"id": "a", "Option1 Name": None, "Option1 Value": "Blue", "more": None},
        {"id": "b", "Option1 Name": "Title", "Option1 Value": "Default Title", "more": None},
        **plan,
    )
    keys = [{name: value for name, value in cells.items() if name.startswith("key:")} for cells, _, _ in rows]
    assert keys == [{"key:Color": '["Red", "Blue"]', "key:fit": "slim"}, {}]


def test_rows_of_another_store_view_give_no_values() -> None:
    rows = rows_of(
        {"id": "a", "view": None, "title": "Shirt", "color": "Red", "more": "fit=slim"},
        {"id": "a", "view": "de", "title": "Hemd", "color": "Rot", "more": "fit=eng"},
        {"id": "b", "view": "de", "title": "Hose", "color": "Blau", "more": None},
        same_id=True,
        view="view",
        collected=frozenset({"color"}),
        pair_texts=("more",),
    )
    assert [(cells["title"], cells["color"], cells.get("key:fit")) for cells, _, _ in rows] == [
        ("Shirt", "Red", "slim"),
        ("Hose", "Blau", None),
    ]
    assert [count for _, _, count in rows] == [2, 1]
