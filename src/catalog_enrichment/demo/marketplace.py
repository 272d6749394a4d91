"""Generates a marketplace for the demo and the tests: listings, pictures, merchants' values and the truth.

- Colour and material are shown by the text, by the picture, by both, or (in about 7 of 100 listings) by neither. So
  neither modality alone is enough, and for some listings abstaining is right.
- Neither text nor picture shows the country of origin: it cannot be predicted.
- Merchants fill in about 60% of the values. About 3% of those are wrong, with a higher rate where the listing shows
  the attribute in fewer places. A few use spellings that the dictionary does not have.
- About 2% of the rows or pictures are broken, in one of the ways in `_ROW_FAULTS` and `_PICTURE_FAULTS`.
- Some listings are twins: the same wording in another colour, or the same listing resold by another shop.
- A wholesaler can be added. Its system exports no pictures, and its descriptions name colour and material, in about 94
  of 100 listings each. Models see its listings without a picture, in training and in enrichment.

The same seed gives the same bytes. The wholesaler's listings follow the others and change none of them. In another
language than English the same seed gives the same products, pictures and labels, with translated texts and values.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from catalog_enrichment.demo import pictures
from catalog_enrichment.demo.vocabulary import COLORS, GERMAN, LANGUAGES, MATERIALS, Title, Vocabulary

T = TypeVar("T")


class ShownIn(NamedTuple):
    """Where a listing shows an attribute."""

    text: bool
    picture: bool


class ProductType(NamedTuple):
    """A type of product: its category, English nouns for the title, and the shape in the picture."""

    category: str
    nouns: tuple[str, ...]
    outline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A product of the feed, with its true values."""

    product_id: str
    shop: str
    product_type: ProductType
    color: str
    materials: tuple[str, ...]
    origin: str
    color_shown: ShownIn
    material_shown: ShownIn
    wording: int
    """Seed of the text: twins share it."""
    picture: int
    """Seed of the picture."""


@dataclass(frozen=True, slots=True)
class Marketplace:
    """The files of a generated marketplace."""

    source: Path
    """The feed, JSON lines; the pictures are in `images/` beside it."""
    truth: Path
    """Parquet with product_id, attribute, values of every valid row; outside the feed's folder."""
    rows: int
    """Lines in the feed, invalid lines included."""


# --- products --------------------------------------------------------------------------------------------------------


_RGB = {
    "Black": (38, 36, 40),
    "White": (232, 231, 226),
    "Grey": (132, 134, 137),
    "Red": (200, 32, 38),
    "Blue": (38, 78, 190),
    "Green": (42, 142, 66),
    "Yellow": (238, 204, 44),
    "Pink": (240, 138, 184),
    "Purple": (122, 50, 160),
    "Brown": (118, 76, 42),
}
"""Colour -> its colour in pictures."""
_ORIGINS = ("China", "India", "Italy", "Portugal", "Turkey")
_ORIGIN_CATEGORIES = ("Apparel", "Footwear")
_SHOPS = {"atelier": 0.74, "brightside": 0.65, "corner": 0.6, "dockyard": 0.54, "everyday": 0.48, "feinwerk": 0.6}
"""Shop -> probability that it fills in an attribute."""
_GERMAN_SHOP = "feinwerk"
"""Shop with German attribute values, also where its titles are in English."""
_WHOLESALER = "granary"
"""Shop without pictures."""
_WHOLESALER_FILLS = 0.74
"""Probability that it fills in an attribute."""
_BRANDS = ("Arden", "Bellmont", "Corvo", "Delane", "Estrel", "Fenwick", "Galdo", "Halden", "Ivanti", "Jorvik")
_WHOLESALE_BRANDS = ("Kestrel", "Lowry", "Marlow", "Norden", "Orsino", "Pell", "Quimby", "Rostand", "Selby", "Thorne")
_PRODUCT_TYPES = (
    ProductType("Apparel/Topwear", ("shirt", "blouse", "sweater"), "shirt"),
    ProductType("Apparel/Bottomwear", ("trousers", "pants"), "trousers"),
    ProductType("Apparel/Bottomwear", ("skirt",), "skirt"),
    ProductType("Footwear/Shoes", ("sneakers", "boots", "loafers"), "shoe"),
    ProductType("Accessories/Bags", ("bag", "tote", "backpack"), "bag"),
    ProductType("Home/Textiles", ("cushion", "throw", "curtain"), "cloth"),
)

# --- frequencies -----------------------------------------------------------------------------------------------------

_SHOWN_IN = {ShownIn(True, False): 30, ShownIn(False, True): 28, ShownIn(True, True): 35, ShownIn(False, False): 7}
_WHOLESALER_SHOWN_IN = {ShownIn(True, False): 94, ShownIn(False, False): 6}
_MATERIAL_COUNTS = {1: 60, 2: 30, 3: 10}
_WRONG_BY_PLACES = {2: 0.007, 1: 0.02, 0: 0.23}
"""Number of places that show an attribute -> probability of a wrong merchant value; 3% on average."""
_WRONG_WHOLESALE = 0.007
"""The wholesaler fills in values from its stock list, where few are wrong."""
_WRONG_ORIGIN = 0.03
_UNKNOWN_SPELLING = 0.002
_OPT_OUT = 0.01
_TWIN = 0.06
_NEWEST = datetime(2026, 6, 30, tzinfo=UTC)
_ROW_FAULTS = {"no id": 10, "repeated id": 12, "empty title": 14, "title is a list": 4, "cut line": 3}
_PICTURE_FAULTS = {"no picture": 24, "missing file": 14, "cut": 18, "zero bytes": 10, "not a picture": 10, "bomb": 3}
"""Fault -> number of rows with it in 6,000."""


def generate(
    folder: Path,
    products: int = 6000,
    seed: int = 7,
    progress: bool = False,
    wholesale: int = 0,
    language: str = "en",
) -> Marketplace:
    """Write a marketplace into ``folder``, and its truth beside that folder.

    ``products``: rows of the shops with pictures; ``wholesale``: further rows, of the wholesaler, which has none.
    ``progress``: show a progress bar. ``language``: that of texts and merchants' values, a key of LANGUAGES. Takes
    about 1 ms per picture.
    """
    from tqdm import tqdm

    (folder / "images").mkdir(parents=True, exist_ok=True)
    listings = list(_listings(products, random.Random(seed)))
    listings += _wholesale_listings(wholesale, random.Random(seed + 2))
    faults = _draw_faults(products, random.Random(seed + 1))
    source = folder / "products.jsonl"
    with source.open("w", encoding="utf-8") as feed:
        for number in tqdm(range(len(listings)), desc="marketplace", unit=" products", disable=not progress):
            fault = faults.get(number, "")
            listing = listings[number - 1 if fault == "repeated id" else number]
            row = _row(listing, language, random.Random(f"{seed}-{listing.product_id}"))
            row["images"] = _write_pictures(folder, listing, fault)
            feed.write(_line(row, fault) + "\n")
    truth = folder.with_name(f"{folder.name}-truth.parquet")
    _write_truth(truth, [listing for n, listing in enumerate(listings) if faults.get(n) not in _ROW_FAULTS])
    return Marketplace(source=source, truth=truth, rows=len(listings))


# --- listings --------------------------------------------------------------------------------------------------------


def _listings(products: int, rng: random.Random) -> Iterator[Listing]:
    listing: Listing | None = None
    for number in range(products):
        product_id = f"p{number:05d}"
        twin = listing is not None and rng.random() < _TWIN
        if listing is not None and twin and rng.random() < 0.5:
            listing = replace(listing, product_id=product_id, color=rng.choice(COLORS), picture=number)
        elif listing is not None and twin:
            listing = replace(listing, product_id=product_id, shop=rng.choice(list(_SHOPS)))
        else:
            listing = _new_listing(product_id, number, rng)
        yield listing


def _new_listing(product_id: str, number: int, rng: random.Random) -> Listing:
    return Listing(
        product_id=product_id,
        shop=rng.choice(list(_SHOPS)),
        product_type=rng.choice(_PRODUCT_TYPES),
        color=rng.choice(COLORS),
        materials=tuple(rng.sample(MATERIALS, _weighted_choice(_MATERIAL_COUNTS, rng))),
        origin=rng.choice(_ORIGINS),
        color_shown=_weighted_choice(_SHOWN_IN, rng),
        material_shown=_weighted_choice(_SHOWN_IN, rng),
        wording=rng.getrandbits(32),
        picture=number,
    )


def _wholesale_listings(count: int, rng: random.Random) -> Iterator[Listing]:
    """Yield listings without pictures; a twin has the wording of the listing before it and another colour."""
    listing: Listing | None = None
    for number in range(count):
        product_id = f"w{number:05d}"
        if listing is not None and rng.random() < _TWIN:
            listing = replace(listing, product_id=product_id, color=rng.choice(COLORS))
        else:
            listing = replace(
                _new_listing(product_id, number, rng),
                shop=_WHOLESALER,
                color_shown=_weighted_choice(_WHOLESALER_SHOWN_IN, rng),
                material_shown=_weighted_choice(_WHOLESALER_SHOWN_IN, rng),
            )
        yield listing


def _weighted_choice(weights: dict[T, int], rng: random.Random) -> T:
    """Draw a key with its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def _draw_faults(products: int, rng: random.Random) -> dict[int, str]:
    """Return row number -> its fault. Only odd rows are broken, so that the row before a broken row is valid."""
    faults = [
        name
        for name, count in (_ROW_FAULTS | _PICTURE_FAULTS).items()
        for _ in range(max(1, round(count * products / 6000)))
    ]
    odd = range(1, products, 2)
    return dict(zip(rng.sample(odd, min(len(faults), len(odd))), faults, strict=False))


# --- feed ------------------------------------------------------------------------------------------------------------


def _row(listing: Listing, language: str, rng: random.Random) -> dict[str, Any]:
    """Return a row of the feed without its pictures."""
    title, description = _wording(listing, LANGUAGES[language])
    return {
        "id": listing.product_id,
        "shop": listing.shop,
        "title": title,
        "description": description,
        "category": listing.product_type.category,
        "language": language,
        "opt_out": rng.random() < _OPT_OUT,
        "updated_at": (_NEWEST - timedelta(minutes=rng.randrange(365 * 24 * 60))).isoformat(),
        **_merchant_values(listing, language, rng),
    }


def _wording(listing: Listing, words: Vocabulary) -> tuple[str, str]:
    """Return title and description.

    Every random value is drawn, also where it is not used, so that twins differ in the colour only.
    """
    rng = random.Random(listing.wording)
    color = words.colors[listing.color][rng.randrange(3)]
    materials = [rng.choice(words.materials[material]) for material in listing.materials]
    color_in_title, material_in_title = rng.random() < 0.7, rng.random() < 0.5 and len(materials) == 1
    color_phrase = rng.choice(words.color_phrases).format(color.alone)
    material_phrase = rng.choice(words.material_phrases).format(words.conjunction.join(m.text for m in materials))
    wholesale = listing.shop == _WHOLESALER
    brand = rng.choice(_WHOLESALE_BRANDS if wholesale else _BRANDS)
    adjective, noun = rng.choice(words.adjectives), words.nouns[rng.choice(listing.product_type.nouns)]
    sentences = rng.sample(words.fillers, 2)
    extra = rng.choice(words.extras) if rng.random() < 0.5 else ""
    uppercase = rng.random() < 0.08
    shows_material, shows_color = listing.material_shown.text, listing.color_shown.text
    title = words.title(
        Title(
            brand=brand,
            adjective=adjective,
            noun=noun,
            color=color if shows_color and color_in_title and not wholesale else None,
            material=materials[0] if shows_material and material_in_title and not wholesale else None,
            extra=extra,
        )
    )
    if shows_material and (wholesale or not material_in_title):
        sentences.insert(1, material_phrase)
    if shows_color and (wholesale or not color_in_title):
        sentences.insert(1, color_phrase)
    return title.upper() if uppercase else title, words.between_sentences.join(sentences)


def _merchant_values(listing: Listing, language: str, rng: random.Random) -> dict[str, Any]:
    """Return the merchant's value of every attribute; None where it was not filled in."""
    has_origin = listing.product_type.category.startswith(_ORIGIN_CATEGORIES)
    color_error, material_error = _error(listing, listing.color_shown), _error(listing, listing.material_shown)
    words = GERMAN if listing.shop == _GERMAN_SHOP and language == "en" else LANGUAGES[language]
    color = _attribute_values((listing.color,), COLORS, color_error, listing.shop, words, rng)
    material = _attribute_values(listing.materials, MATERIALS, material_error, listing.shop, words, rng)
    origin = _attribute_values((listing.origin,), _ORIGINS, _WRONG_ORIGIN, listing.shop, words, rng)
    return {
        "color": color[0] if color else None,
        "material": material or None,
        "country_of_origin": origin[0] if origin and has_origin else None,
    }


def _error(listing: Listing, shown: ShownIn) -> float:
    """Return the probability that the merchant's value is wrong."""
    return _WRONG_WHOLESALE if listing.shop == _WHOLESALER else _WRONG_BY_PLACES[sum(shown)]


def _attribute_values(
    truth: tuple[str, ...], pool: Sequence[str], error: float, shop: str, words: Vocabulary, rng: random.Random
) -> list[str]:
    """Return the merchant's values of an attribute, in the merchant's spelling; [] if it was not filled in."""
    if rng.random() >= _SHOPS.get(shop, _WHOLESALER_FILLS):
        return []
    values = list(truth)
    if rng.random() < error:
        values[rng.randrange(len(values))] = rng.choice([value for value in pool if value not in truth])
    if rng.random() < _UNKNOWN_SPELLING:
        return ["see picture"]
    spelled = [words.spelled(value) for value in values]
    if shop == _GERMAN_SHOP:
        return spelled
    return [value.lower() for value in spelled] if rng.random() < 0.2 else spelled


def _line(row: dict[str, Any], fault: str) -> str:
    """Return the row as JSON, with the fault."""
    if fault == "no id":
        row["id"] = None
    elif fault == "empty title":
        row["title"] = "  "
    elif fault == "title is a list":
        row["title"] = [row["title"], 404]
    line = json.dumps(row, ensure_ascii=False)
    return line[: len(line) * 2 // 3] if fault == "cut line" else line


def _write_truth(path: Path, listings: list[Listing]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for listing in listings:
        values = {"color": [listing.color], "material": sorted(listing.materials)}
        if listing.product_type.category.startswith(_ORIGIN_CATEGORIES):
            values["country_of_origin"] = [listing.origin]
        rows += [{"product_id": listing.product_id, "attribute": name, "values": v} for name, v in values.items()]
    pq.write_table(pa.Table.from_pylist(rows), path)


# --- pictures --------------------------------------------------------------------------------------------------------


def _write_pictures(folder: Path, listing: Listing, fault: str) -> list[str]:
    """Write the listing's pictures with the fault; return their paths relative to the feed."""
    name = f"images/{listing.product_id}.jpg"
    if fault == "no picture" or listing.shop == _WHOLESALER:
        return []
    if fault == "missing file":
        return [name]
    rgb = _RGB[listing.color] if listing.color_shown.picture else None
    swatches = listing.materials if listing.material_shown.picture else ()
    valid = pictures.jpeg(pictures.render(listing.product_type.outline, rgb, swatches, seed=listing.picture))
    broken = {"cut": valid[: len(valid) // 2], "zero bytes": b"", "not a picture": b"<html>502 Bad Gateway</html>"}
    (folder / name).write_bytes(pictures.bomb() if fault == "bomb" else broken.get(fault, valid))
    if fault != "cut":
        return [name]
    second = f"images/{listing.product_id}-back.jpg"
    (folder / second).write_bytes(valid)
    return [name, second]
