"""A marketplace out of nothing: listings, pictures, merchants' values and the truth, for the demo and the tests.

What makes it a fair exercise:

- Colour and material stand in the text, in the picture, in both, or (in about 7 of 100 listings) in neither. So
  neither modality is enough alone, and sometimes abstaining is right.
- Nothing reveals the country of origin. Whoever writes one is guessing.
- Merchants fill in about 60% of the values. About 3% of those are wrong, more of them where the listing is vague,
  because there the clerk had to guess too. A few use spellings that the dictionary does not know.
- About 2% of the rows or pictures are broken, each in one of the ways in `_ROW_FAULTS` and `_PICTURE_FAULTS`.
- Some listings are twins: the same wording in another colour, or the same listing resold by another shop.

The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from catalog_enrichment.demo import pictures

T = TypeVar("T")


class Clue(NamedTuple):
    """Where a listing shows an attribute."""

    text: bool
    picture: bool


class Kind(NamedTuple):
    category: str
    nouns: tuple[str, ...]
    outline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    product_id: str
    shop: str
    kind: Kind
    color: str
    materials: tuple[str, ...]
    origin: str
    color_clue: Clue
    material_clue: Clue
    wording: int
    """Seed of the text: twins share it."""
    picture: int
    """Seed of the picture."""


@dataclass(frozen=True, slots=True)
class Marketplace:
    source: Path
    """The feed, JSON lines; the pictures lie in `images/` beside it."""
    truth: Path
    """Parquet with product_id, attribute, values of every good row; outside the feed's folder."""
    rows: int
    """Lines in the feed, bad ones included."""


# --- the words ---------------------------------------------------------------------------------------------------


class Color(NamedTuple):
    rgb: tuple[int, int, int]
    words: tuple[str, str, str]
    german: str


_COLORS = {
    "Black": Color((38, 36, 40), ("black", "jet black", "onyx"), "Schwarz"),
    "White": Color((232, 231, 226), ("white", "ivory", "snow white"), "Weiß"),
    "Grey": Color((132, 134, 137), ("grey", "gray", "charcoal"), "Grau"),
    "Red": Color((200, 32, 38), ("red", "crimson", "scarlet"), "Rot"),
    "Blue": Color((38, 78, 190), ("blue", "navy", "cobalt"), "Blau"),
    "Green": Color((42, 142, 66), ("green", "olive", "emerald"), "Grün"),
    "Yellow": Color((238, 204, 44), ("yellow", "mustard", "lemon"), "Gelb"),
    "Pink": Color((240, 138, 184), ("pink", "rose", "blush"), "Rosa"),
    "Purple": Color((122, 50, 160), ("purple", "violet", "plum"), "Lila"),
    "Brown": Color((118, 76, 42), ("brown", "chestnut", "mocha"), "Braun"),
}
_MATERIALS = {
    "Cotton": ("cotton", "combed cotton"),
    "Denim": ("denim", "jean cloth"),
    "Leather": ("leather", "nappa"),
    "Linen": ("linen", "flax"),
    "Silk": ("silk", "mulberry silk"),
    "Wool": ("wool", "merino"),
}
_ORIGINS = ("China", "India", "Italy", "Portugal", "Turkey")
_ORIGIN_CATEGORIES = ("Apparel", "Footwear")
_GERMAN = {name: color.german for name, color in _COLORS.items()} | {
    **{"Cotton": "Baumwolle", "Denim": "Jeansstoff", "Leather": "Leder"},
    **{"Linen": "Leinen", "Silk": "Seide", "Wool": "Wolle"},
    **{"China": "China", "India": "Indien", "Italy": "Italien", "Portugal": "Portugal", "Turkey": "Türkei"},
}
_SHOPS = {"atelier": 0.74, "brightside": 0.65, "corner": 0.6, "dockyard": 0.54, "everyday": 0.48, "feinwerk": 0.6}
"""Shop = how often it fills in an attribute."""
_GERMAN_SHOP = "feinwerk"
"""Sells under English titles; its attribute values come from a German warehouse system."""
_BRANDS = ("Arden", "Bellmont", "Corvo", "Delane", "Estrel", "Fenwick", "Galdo", "Halden", "Ivanti", "Jorvik")
_ADJECTIVES = ("classic", "slim", "relaxed", "everyday", "lightweight", "premium", "vintage", "cozy", "modern", "bold")
_EXTRAS = ("with pockets", "for women", "for men", "unisex", "new season", "limited edition", "2 pack", "size M")
_COLOR_PHRASES = ("Comes in {}.", "Colour: {}.", "Dyed in a deep {}.", "Shown in {}.")
_MATERIAL_PHRASES = ("Made from {}.", "Material: {}.", "Crafted in {}.", "A blend to love: {}.")
_FILLERS = (
    "Easy to care for.",
    "Ships within two days.",
    "A favourite of our customers.",
    "Fits true to size.",
    "Designed to last for years.",
    "Free returns within 30 days.",
    "Goes with everything you own.",
    "<br>Gift wrapping on request!",
)
_KINDS = (
    Kind("Apparel/Topwear", ("shirt", "blouse", "sweater"), "shirt"),
    Kind("Apparel/Bottomwear", ("trousers", "pants"), "trousers"),
    Kind("Apparel/Bottomwear", ("skirt",), "skirt"),
    Kind("Footwear/Shoes", ("sneakers", "boots", "loafers"), "shoe"),
    Kind("Accessories/Bags", ("bag", "tote", "backpack"), "bag"),
    Kind("Home/Textiles", ("cushion", "throw", "curtain"), "cloth"),
)

# --- how often ---------------------------------------------------------------------------------------------------

_CLUES = {Clue(True, False): 30, Clue(False, True): 28, Clue(True, True): 35, Clue(False, False): 7}
_MATERIAL_COUNTS = {1: 60, 2: 30, 3: 10}
_WRONG_BY_CLUES = {2: 0.007, 1: 0.02, 0: 0.23}
"""Number of places that show an attribute = how often the merchant gets it wrong; 3% over all."""
_WRONG_ORIGIN = 0.03
_UNKNOWN_SPELLING = 0.002
_OPT_OUT = 0.01
_TWIN = 0.06
_NEWEST = datetime(2026, 6, 30, tzinfo=UTC)
_ROW_FAULTS = {"no id": 10, "repeated id": 12, "empty title": 14, "title is a list": 4, "cut line": 3}
_PICTURE_FAULTS = {"no picture": 24, "missing file": 14, "cut": 18, "zero bytes": 10, "not a picture": 10, "bomb": 3}
"""How many of 6,000 rows have the fault."""


def generate(folder: Path, products: int = 6000, seed: int = 7, progress: bool = False) -> Marketplace:
    """Write a marketplace of ``products`` rows into ``folder`` and its truth beside that folder.

    ``progress`` draws a bar. About 2 ms a product.
    """
    from tqdm import tqdm

    (folder / "images").mkdir(parents=True, exist_ok=True)
    listings = list(_listings(products, random.Random(seed)))
    faults = _draw_faults(products, random.Random(seed + 1))
    source = folder / "products.jsonl"
    with source.open("w", encoding="utf-8") as feed:
        for number in tqdm(range(products), desc="marketplace", unit=" products", disable=not progress):
            fault = faults.get(number, "")
            listing = listings[number - 1 if fault == "repeated id" else number]
            row = _row(listing, random.Random(f"{seed}-{listing.product_id}"))
            row["images"] = _write_pictures(folder, listing, fault)
            feed.write(_line(row, fault) + "\n")
    truth = folder.with_name(f"{folder.name}-truth.parquet")
    _write_truth(truth, [listing for n, listing in enumerate(listings) if faults.get(n) not in _ROW_FAULTS])
    return Marketplace(source=source, truth=truth, rows=products)


# --- listings ----------------------------------------------------------------------------------------------------


def _listings(products: int, dice: random.Random) -> Iterator[Listing]:
    listing: Listing | None = None
    for number in range(products):
        product_id = f"p{number:05d}"
        twin = listing is not None and dice.random() < _TWIN
        if listing is not None and twin and dice.random() < 0.5:
            listing = replace(listing, product_id=product_id, color=dice.choice(list(_COLORS)), picture=number)
        elif listing is not None and twin:
            listing = replace(listing, product_id=product_id, shop=dice.choice(list(_SHOPS)))
        else:
            listing = _new_listing(product_id, number, dice)
        yield listing


def _new_listing(product_id: str, number: int, dice: random.Random) -> Listing:
    return Listing(
        product_id=product_id,
        shop=dice.choice(list(_SHOPS)),
        kind=dice.choice(_KINDS),
        color=dice.choice(list(_COLORS)),
        materials=tuple(dice.sample(list(_MATERIALS), _weighted(_MATERIAL_COUNTS, dice))),
        origin=dice.choice(_ORIGINS),
        color_clue=_weighted(_CLUES, dice),
        material_clue=_weighted(_CLUES, dice),
        wording=dice.getrandbits(32),
        picture=number,
    )


def _weighted(weights: dict[T, int], dice: random.Random) -> T:
    return dice.choices(list(weights), list(weights.values()))[0]


def _draw_faults(products: int, dice: random.Random) -> dict[int, str]:
    """Row number -> its fault. Only odd rows: the row before a broken one is whole."""
    wanted = [
        name
        for name, count in (_ROW_FAULTS | _PICTURE_FAULTS).items()
        for _ in range(max(1, round(count * products / 6000)))
    ]
    odd = range(1, products, 2)
    return dict(zip(dice.sample(odd, min(len(wanted), len(odd))), wanted, strict=False))


# --- the feed ----------------------------------------------------------------------------------------------------


def _row(listing: Listing, dice: random.Random) -> dict[str, Any]:
    """One line of the feed, but for its pictures."""
    title, description = _wording(listing)
    return {
        "id": listing.product_id,
        "shop": listing.shop,
        "title": title,
        "description": description,
        "category": listing.kind.category,
        "language": "en",
        "opt_out": dice.random() < _OPT_OUT,
        "updated_at": (_NEWEST - timedelta(minutes=dice.randrange(365 * 24 * 60))).isoformat(),
        **_merchant_values(listing, dice),
    }


def _wording(listing: Listing) -> tuple[str, str]:
    """Title and description. All is drawn whether or not it shows, so that twins differ in the colour alone."""
    dice = random.Random(listing.wording)
    color = _COLORS[listing.color].words[dice.randrange(3)]
    materials = [dice.choice(_MATERIALS[material]) for material in listing.materials]
    color_leads, material_leads = dice.random() < 0.7, dice.random() < 0.5 and len(materials) == 1
    color_phrase = dice.choice(_COLOR_PHRASES).format(color)
    material_phrase = dice.choice(_MATERIAL_PHRASES).format(" and ".join(materials))
    words = [dice.choice(_BRANDS), dice.choice(_ADJECTIVES), dice.choice(listing.kind.nouns)]
    sentences = dice.sample(_FILLERS, 2)
    if dice.random() < 0.5:
        words.append(dice.choice(_EXTRAS))
    shouts = dice.random() < 0.08
    if listing.material_clue.text:
        _place(materials[0], material_phrase, words if material_leads else None, sentences)
    if listing.color_clue.text:
        _place(color, color_phrase, words if color_leads else None, sentences)
    title = " ".join(words)
    return title.upper() if shouts else title, " ".join(sentences)


def _place(word: str, phrase: str, title: list[str] | None, sentences: list[str]) -> None:
    """Put an attribute before the title's noun, or as a phrase into the description."""
    if title is not None:
        title.insert(2, word)
    else:
        sentences.insert(1, phrase)


def _merchant_values(listing: Listing, dice: random.Random) -> dict[str, Any]:
    made_abroad = listing.kind.category.startswith(_ORIGIN_CATEGORIES)
    color_error = _WRONG_BY_CLUES[sum(listing.color_clue)]
    material_error = _WRONG_BY_CLUES[sum(listing.material_clue)]
    color = _claim((listing.color,), list(_COLORS), color_error, listing.shop, dice)
    material = _claim(listing.materials, list(_MATERIALS), material_error, listing.shop, dice)
    origin = _claim((listing.origin,), list(_ORIGINS), _WRONG_ORIGIN, listing.shop, dice)
    return {
        "color": color[0] if color else None,
        "material": material or None,
        "country_of_origin": origin[0] if origin and made_abroad else None,
    }


def _claim(truth: tuple[str, ...], pool: list[str], error: float, shop: str, dice: random.Random) -> list[str]:
    """What the merchant says of an attribute, in the merchant's spelling; nothing if it was not filled in."""
    if dice.random() >= _SHOPS[shop]:
        return []
    values = list(truth)
    if dice.random() < error:
        values[dice.randrange(len(values))] = dice.choice([value for value in pool if value not in truth])
    if dice.random() < _UNKNOWN_SPELLING:
        return ["see picture"]
    if shop == _GERMAN_SHOP:
        return [_GERMAN[value] for value in values]
    return [value.lower() for value in values] if dice.random() < 0.2 else values


def _line(row: dict[str, Any], fault: str) -> str:
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
        if listing.kind.category.startswith(_ORIGIN_CATEGORIES):
            values["country_of_origin"] = [listing.origin]
        rows += [{"product_id": listing.product_id, "attribute": name, "values": v} for name, v in values.items()]
    pq.write_table(pa.Table.from_pylist(rows), path)


# --- the pictures ------------------------------------------------------------------------------------------------


def _write_pictures(folder: Path, listing: Listing, fault: str) -> list[str]:
    """Write the listing's pictures, with the fault. Returns their paths, relative to the feed."""
    name = f"images/{listing.product_id}.jpg"
    if fault == "no picture":
        return []
    if fault == "missing file":
        return [name]
    rgb = _COLORS[listing.color].rgb if listing.color_clue.picture else None
    swatches = listing.materials if listing.material_clue.picture else ()
    whole = pictures.jpeg(pictures.render(listing.kind.outline, rgb, swatches, seed=listing.picture))
    broken = {"cut": whole[: len(whole) // 2], "zero bytes": b"", "not a picture": b"<html>502 Bad Gateway</html>"}
    (folder / name).write_bytes(pictures.bomb() if fault == "bomb" else broken.get(fault, whole))
    if fault != "cut":
        return [name]
    second = f"images/{listing.product_id}-back.jpg"
    (folder / second).write_bytes(whole)
    return [name, second]
