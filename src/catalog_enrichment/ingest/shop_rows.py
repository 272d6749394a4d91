"""Makes one row per product from the rows of a shop's export: variants, and attributes that are written as pairs.

Exports of shop systems spread a product over several rows (a row per variant or picture), and write attributes as
pairs: a column with the attribute's name beside a column with its value, or one text like `color=Black,size=M`. Each
key becomes a column `key:NAME`, which the mapping and init_project use like a column of the file. No Spark in here.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from catalog_enrichment.config.source import KEY, SourceConfig

_NO_VALUES = frozenset({"default title"})
"""What Shopify writes as value where a product has no variants."""
_LONGEST = 20_000
"""Characters. A longer text is not looked at for pairs."""
_LONGEST_KEY = 40
_KEYED = (
    re.compile(r"(?:^|[,|;\n])\s*(?P<key>[^=:?,|;\n]{1,40}?)\s*=\s*"),
    re.compile(r"(?:^|[|;\n]|(?<=\S)\s{2,})\s*(?P<key>[^\W\d][^:=|;\n]{0,39}?)\s*:\s*(?!//)(?=\S)"),
    re.compile(r"(?:^|,)\s*(?P<key>[^\W\d][^:=,\n]{0,39}?)\s*:\s*(?!//)(?=\S)"),
)
"""Forms of pairs in a text: `color=Black,size=M`; `Color: Black; Size: M`, also with | and line breaks; the same with
commas. What stands between two keys is a value, so that it may hold commas itself."""
_OPTIONS = re.compile(r"Name=(?P<key>[^|]+)\|Value=(?P<value>.*?)(?:\[[^\]]*\])?(?=Type=|$)")
"""BigCommerce's form: `Type=Swatch|Name=Color|Value=Red[#f00]`, several of them without a sign between them."""
_POSITION = re.compile(r"(?<=[^\d:]):\d+$")
"""What PrestaShop writes behind a value: `Color:Red:1`."""
_NAMES = ("key", "name", "label", "attribute")
_VALUES = ("value", "values", "val", "option", "options", "content")
"""Keys of objects in a JSON list that say a pair's name and value."""


@dataclass(frozen=True, slots=True)
class RowPlan:
    """The rule by which rows of a file become rows of products."""

    id_selectors: tuple[str, ...] = ()
    """The selectors of `mapping.product_id`; only columns and templates over columns count here."""
    same_id: bool = False
    """True if rows with the same product id are one product."""
    parent: str = ""
    """Column with the id of the product that a row is a variant of."""
    view: str = ""
    """Column that is filled in rows that repeat a product in another language."""
    kind: str = ""
    """Column that tells rows of products from rows that belong to the product above them."""
    product_kinds: frozenset[str] = frozenset()
    """The values of ``kind`` in the rows of products, in lower case."""
    collected: frozenset[str] = frozenset()
    """Columns of which a product has the values of all its rows: pictures, attributes and pairs."""
    pair_texts: tuple[str, ...] = ()
    """Columns with pairs in a text."""
    pair_columns: tuple[tuple[str, str], ...] = ()
    """(column with the attribute's name, column with its value) pairs."""

    @classmethod
    def of(cls, source: SourceConfig) -> RowPlan:
        """Return the plan of a config's section `[source]`."""
        mapping, variants = source.mapping, source.variants
        pictures = mapping.image_uris if isinstance(mapping.image_uris, list) else [mapping.image_uris]
        given = mapping.product_id if isinstance(mapping.product_id, list) else [mapping.product_id]
        pairs = {*source.pair_texts, *source.pair_columns, *source.pair_columns.values()}
        return cls(
            id_selectors=tuple(given),
            same_id=variants is not None and variants.same_id,
            parent=variants.parent if variants else "",
            view=variants.view if variants else "",
            kind=variants.kind if variants else "",
            product_kinds=frozenset(kind.casefold() for kind in variants.product_kinds) if variants else frozenset(),
            collected=frozenset({*pictures, *mapping.attributes.values(), *pairs} - {""}),
            pair_texts=tuple(source.pair_texts),
            pair_columns=tuple(source.pair_columns.items()),
        )

    @property
    def merges(self) -> bool:
        """Return whether several rows can be one product."""
        return self.same_id or bool(self.parent) or bool(self.kind)

    @property
    def has_pairs(self) -> bool:
        return bool(self.pair_texts or self.pair_columns)

    def columns(self) -> set[str]:
        """Return the columns of the file that the plan itself reads."""
        templates = {name for selector in self.id_selectors for name in re.findall(r"\{([^{}]+)\}", selector)}
        named = {
            *self.pair_texts,
            *(name for pair in self.pair_columns for name in pair),
            self.parent,
            self.view,
            self.kind,
        }
        return (named | templates | set(self.id_selectors if self.merges else ())) - {""}


ROW_BY_ROW = RowPlan()
"""Every row is a product, and no text holds pairs."""
Cells = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ProductRow:
    """A row of a product."""

    cells: dict[str, str | None]
    """Column -> text. Where several rows gave several values, a JSON list of them."""
    number: int
    """Number of its first row in the file."""
    rows: int = 1
    """Rows that it is made of."""


def product_rows(rows: Iterable[tuple[int, Cells]], plan: RowPlan) -> Iterator[ProductRow]:
    """Yield a row per product from the (number, cells) rows of one file, in the order of the products' first rows.

    Where rows are merged, the texts of a product are those of its own row, or else of its first row that has them. A
    variant whose product is not in the file is a product itself. All rows of the file are kept in memory then.
    """
    if not plan.merges:
        for number, cells in rows:
            yield ProductRow({**cells, **_pair_cells([cells], plan)}, number)
        return
    for group in _groups(list(rows), plan):
        number = min(number for number, _ in group)
        cells_of_rows = [cells for _, cells in group if not (plan.view and cells.get(plan.view))]
        cells_of_rows = cells_of_rows or [cells for _, cells in group]
        own = {name for selector in plan.id_selectors for name in re.findall(r"\{([^{}]+)\}", selector) or [selector]}
        yield ProductRow(
            _merged(cells_of_rows, plan.collected, own) | _pair_cells(cells_of_rows, plan), number, len(group)
        )


def _groups(rows: Sequence[tuple[int, Cells]], plan: RowPlan) -> Iterator[list[tuple[int, Cells]]]:
    """Yield the rows of each product, its own rows before those of its variants."""
    own = [_product_id(cells, plan.id_selectors) for _, cells in rows]
    parents = [(cells.get(plan.parent) or "").strip() for _, cells in rows]
    products = {product_id for product_id, parent in zip(own, parents, strict=True) if product_id and not parent}
    groups: dict[object, list[tuple[bool, tuple[int, Cells]]]] = {}
    above: object = None
    for place, (product_id, parent, row) in enumerate(zip(own, parents, rows, strict=True)):
        is_variant = parent in products
        kind = (row[1].get(plan.kind) or "").strip().casefold()
        key: object = place
        if is_variant:
            key = parent
        elif plan.kind and kind not in plan.product_kinds and above is not None:
            key = above
        elif product_id and (plan.same_id or product_id in parents):
            key = product_id
        above = key
        groups.setdefault(key, []).append((is_variant, row))
    for group in groups.values():
        yield [row for _, row in sorted(group, key=itemgetter(0))]


def _product_id(cells: Cells, selectors: Sequence[str]) -> str:
    """Return the first value that a selector gives: of a column, or a template whose columns all have values."""
    for selector in selectors:
        if selector in cells:
            value = cells[selector]
        else:
            names = re.findall(r"\{([^{}]+)\}", selector)
            found = {name: cells.get(name) for name in names}
            whole = bool(names) and all(found.values())
            value = re.sub(r"\{([^{}]+)\}", lambda match: found[match[1]] or "", selector) if whole else None  # noqa: B023
        if value and value.strip():
            return value.strip()
    return ""


def _merged(rows: Sequence[Cells], collected: frozenset[str], own: Collection[str]) -> dict[str, str | None]:
    """Return the cells of a product. ``own``: the columns of its id, which are those of its first row."""
    names = dict.fromkeys(name for cells in rows for name in cells)
    return {
        name: _listed(cells.get(name) for cells in rows)
        if name in collected
        else next((value for cells in rows[: 1 if name in own else None] if (value := cells.get(name))), None)
        for name in names
    }


def _listed(values: Iterable[str | None]) -> str | None:
    """Return the different values as one cell: nothing, the value, or a JSON list of several."""
    different = list(dict.fromkeys(value for value in values if value))
    return json.dumps(different, ensure_ascii=False) if len(different) > 1 else next(iter(different), None)


# --- pairs ------------------------------------------------------------------------------------------------------------


def _pair_cells(rows: Sequence[Cells], plan: RowPlan) -> dict[str, str | None]:
    """Return `key:NAME` -> the values that the rows of one product have for it."""
    if not plan.has_pairs:
        return {}
    found: dict[str, list[str]] = {}

    def add(key: str, value: str) -> None:
        if key and value and value.casefold() not in _NO_VALUES:
            found.setdefault(KEY + key, []).append(value)

    for name_column, value_column in plan.pair_columns:
        name = ""  # an export may name the attribute in a product's first row alone
        for cells in rows:
            name = (cells.get(name_column) or "").strip() or name
            add(name, (cells.get(value_column) or "").strip())
    for column in plan.pair_texts:
        for cells in rows:
            for key, values in pairs_in(cells.get(column) or "").items():
                for value in values:
                    add(key, value)
    return {key: _listed(values) for key, values in found.items()}


def pairs_in(text: str) -> dict[str, list[str]]:
    """Return key -> values of the pairs in a text; empty if it holds none.

    Known forms: a JSON object, a list of objects with a key and a value, both also as Python and Ruby write them, and
    the forms of _KEYED.
    """
    if not text or len(text) > _LONGEST:
        return {}
    if text.lstrip()[:1] in ("{", "["):
        return _pairs_of(_parsed(text))
    if text.startswith("Type="):
        return {match["key"]: [match["value"]] for match in _OPTIONS.finditer(text)}
    text = html.unescape(re.sub(r"<[^<>]*>", "\n", text)) if "</" in text else text
    text = re.sub(r'"([^"=]+=[^"]*)"', r"\1", text)  # Magento quotes a pair whose value has a comma
    start = len(text) - len(text.lstrip())
    forms = [found for form in _KEYED if (found := list(form.finditer(text))) and found[0].start("key") <= start]
    keys = max(forms, key=len, default=[])
    ends = [match.start() for match in keys[1:]] + [len(text)]
    pairs: dict[str, list[str]] = {}
    for match, end in zip(keys, ends, strict=False):
        value = text[match.end() : end].strip().strip('"').strip(" ,;")
        if value:
            parts = [_POSITION.sub("", part.strip()) for part in value.split("|")]
            pairs.setdefault(match["key"].strip(), []).extend(parts)
    return pairs


def _parsed(text: str) -> Any:
    for parse in (json.loads, lambda given: json.loads(given.replace('"=>', '":')), ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _pairs_of(content: Any) -> dict[str, list[str]]:
    """Return the pairs of parsed content: an object's own, or those that the objects of a list give."""
    if isinstance(content, dict):
        if len(content) == 1 and isinstance(inner := next(iter(content.values())), list | dict):
            return _pairs_of(inner)
        return {str(key)[:_LONGEST_KEY]: texts for key, value in content.items() if (texts := _texts(value))}
    found: dict[str, list[str]] = {}
    for item in content if isinstance(content, list) else ():
        if not isinstance(item, dict):
            continue
        lower = {str(key).casefold(): value for key, value in item.items()}
        key = next((lower[name] for name in _NAMES if isinstance(lower.get(name), str)), "")
        value = next((lower[name] for name in _VALUES if name in lower), None)
        pairs = {key: value} if key else item if value is None else {}
        for name, given in pairs.items():
            if texts := _texts(given):
                found.setdefault(str(name)[:_LONGEST_KEY], []).extend(texts)
    return found


def _texts(value: Any) -> list[str]:
    """Return a value of parsed content as texts; none for an object and for no value."""
    items = value if isinstance(value, list) else [value]
    plain = [str(item).strip() for item in items if isinstance(item, str | int | float) and not isinstance(item, bool)]
    return [text for text in plain if text]
