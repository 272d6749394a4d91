"""Exports of shop systems, recognised by the names of their columns: which columns mean what, and what one product is.

Column names are those that the systems write: Shopify's product CSV, WooCommerce's product CSV, Magento's (Adobe
Commerce's) product CSV, Google Merchant Center's product data, Akeneo's product export, Amazon's listing reports and
inventory templates, BigCommerce's product CSV. A user's own argument comes before what is said here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """One kind of export."""

    name: str
    needs: tuple[str, ...]
    """Columns by which it is recognised: all of them, in any case; `|` stands between two of which either will do."""
    roles: Mapping[str, tuple[str, ...]]
    """Key of `source.mapping` -> columns, or templates; those that the file has are taken."""
    variants: Mapping[str, object] = field(default_factory=dict)
    """The section `source.variants`; empty: each row is a product."""
    pair_texts: tuple[str, ...] = ()
    pair_columns: tuple[tuple[str, str], ...] = ()
    """Patterns of (column with a name, column with its value) pairs; `N` stands for a number."""
    joined_by: str = ""
    """What stands between several values of a pair."""
    categories_joined_by: str = ""
    """What stands between several category paths."""
    no_attributes: str = ""
    """A pattern of columns that are no attributes: how the shop works, not what a product is."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Columns with names of their own that are attributes -> what they are called elsewhere."""


ONE_COLUMN = {"category", "language"}
"""Keys of `source.mapping` that take one column: the first that a file has."""

EXPORTS = (
    Export(
        name="Shopify",
        needs=("handle", "title", "body (html)"),
        roles={
            "product_id": ("Handle",),
            "title": ("Title",),
            "description": ("Body (HTML)",),
            "category": ("Product Category", "Type"),
            "image_uris": ("Image Src", "Variant Image"),
            "shop_id": (),
        },
        variants={"same_id": True},
        attributes={"Vendor": "brand"},
        pair_columns=(("Option{N} Name", "Option{N} Value"),),
        no_attributes=r"option\d.*|tags|published.*|variant .*|image .*|gift card|seo .*|google shopping .*|status|"
        r"included / .*|price / .*|compare-at .*|cost per item|collection",
    ),
    Export(
        name="Shopify",
        needs=("url handle", "title", "option1 name"),
        roles={
            "product_id": ("URL handle",),
            "title": ("Title",),
            "description": ("Description", "Body (HTML)"),
            "category": ("Product category", "Type"),
            "image_uris": ("Product image URL", "Variant image URL"),
            "shop_id": (),
        },
        variants={"same_id": True},
        attributes={"Vendor": "brand"},
        pair_columns=(("Option{N} name", "Option{N} value"),),
        no_attributes=r"option\d.*|tags|published.*|sku|barcode|price.*|compare-at price|cost per item|charge tax|"
        r"tax .*|inventory .*|continue selling.*|weight .*|requires shipping|fulfillment .*|.*image.*|gift card|seo .*|"
        r"google shopping .*|status|unit price.*",
    ),
    Export(
        name="WooCommerce",
        needs=("id", "type", "sku", "name", "categories", "images"),
        roles={
            "product_id": ("SKU", "id:{ID}"),
            "title": ("Name",),
            "description": ("Description", "Short description"),
            "category": ("Categories",),
            "image_uris": ("Images",),
            "shop_id": (),
        },
        variants={"same_id": False, "parent": "Parent"},
        pair_columns=(("Attribute {N} name", "Attribute {N} value(s)"),),
        joined_by=",",
        categories_joined_by=",",
        no_attributes=r"type|published|is featured\??|visibility in catalog|.*sale price.*|tax .*|in stock\??|stock|.*"
        r"backorders.*|sold individually\??|allow customer reviews\??|purchase note|regular price|tags|shipping class|"
        r"download .*|parent|grouped products|upsells|cross-sells|external url|button text|position|attribute \d+ .*|"
        r"meta: .*|.*weight.*|.*length.*|.*width.*|.*height.*|gtin.*",
    ),
    Export(
        name="WooCommerce",  # the exporter translates the names
        needs=("id", "typ", "artikelnummer", "name", "kategorien", "bilder"),
        roles={
            "product_id": ("Artikelnummer", "id:{ID}"),
            "title": ("Name",),
            "description": ("Beschreibung", "Kurzbeschreibung"),
            "category": ("Kategorien",),
            "image_uris": ("Bilder",),
            "shop_id": (),
        },
        variants={"same_id": False, "parent": "Übergeordnetes Produkt"},
        pair_columns=(("Attribut {N} Name", "Attribut {N} Wert(e)"),),
        joined_by=",",
        categories_joined_by=",",
        no_attributes=r"typ|veröffentlicht|ist hervorgehoben\??|sichtbarkeit.*|.*preis.*|datum.*|steuer.*|vorrätig\??|"
        r"lager.*|bestand|.*lieferrückstand.*|nur einzeln.*|kundenrezensionen.*|anmerkung.*|schlagwörter|versandklasse|"
        r".*download.*|übergeordnetes produkt|gruppierte produkte|zusatzverkäufe|cross-sells.*|externe url|button-text|"
        r"position|attribut \d+ .*|meta: .*|gewicht.*|länge.*|breite.*|höhe.*|gtin.*",
    ),
    Export(
        name="Magento",
        needs=("sku", "name", "additional_attributes"),
        roles={
            "product_id": ("sku",),
            "title": ("name",),
            "description": ("description", "short_description"),
            "category": ("categories",),
            "image_uris": ("base_image", "additional_images"),
            "updated_at": (),
            "shop_id": (),
        },
        variants={"same_id": True, "view": "store_view_code"},
        pair_texts=("additional_attributes",),
        categories_joined_by=",",
        no_attributes=r"store_view_code|attribute_set_code|product_(type|online|websites)|visibility|.*price.*|url_key|"
        r"meta_.*|.*image.*|created_at|updated_at|display_.*|map_.*|msrp.*|tax_.*|gift_.*|custom_.*|page_layout|"
        r"qty|.*_qty.*|is_.*|manage_.*|use_config.*|allow_.*|notify_.*|website_id|related_.*|crosssell_.*|upsell_.*|"
        r"bundle_.*|configurable_.*|associated_skus|hide_from_.*|has_options|.*backorders.*|country_of_manufacture|"
        r"new_(from|to)_date|weight",
    ),
    Export(
        name="Google Merchant Center",
        needs=("id", "title", "link", "image_link"),
        roles={
            "product_id": ("id",),
            "title": ("title",),
            "description": ("description",),
            "category": ("product_type", "google_product_category"),
            "image_uris": ("image_link", "additional_image_link"),
            "shop_id": (),
        },
        no_attributes=r"link|mobile_link|ads_redirect|canonical_link|.*price.*|availability.*|condition|expiration_date|"
        r"shipping.*|tax.*|gtin|mpn|identifier_exists|adult|multipack|is_bundle|item_group_id|custom_label_\d|"
        r"promotion_id|.*_destination|cost_of_goods_sold|installment|unit_pricing_.*|energy_efficiency_.*|"
        r"google_product_category|sell_on_google_quantity|min_handling_time|max_handling_time|pause",
    ),
    Export(
        name="BigCommerce",
        needs=("item type", "product id", "product name"),
        roles={
            "product_id": ("Product ID",),
            "title": ("Product Name",),
            "description": ("Product Description",),
            "category": ("Category",),
            "image_uris": ("Product Image URL - {N}", "Product Image File - {N}"),
            "shop_id": (),
        },
        categories_joined_by=";",
        variants={"same_id": False, "kind": "Item Type", "product_kinds": ["Product"]},
        no_attributes=r"item type|product type|product (code|image|custom|url|tax|upc|availability|condition|visible|"
        r"warranty|weight|width|height|depth|inventory).*|.*price.*|.*stock.*|.*level.*|track .*|bin picking .*|"
        r"option set.*|free shipping|fixed shipping .*|allow purchases\?|product visible\?|date .*|show .*|sort order|"
        r"page title|meta .*|search keywords|minimum .*|maximum .*|event .*|cost",
    ),
    Export(
        name="BigCommerce",
        needs=("item", "id", "name", "type", "sku", "categories"),
        roles={
            "product_id": ("ID",),
            "title": ("Name",),
            "description": ("Description",),
            "category": ("Categories",),
            "image_uris": ("Image URL (Import)", "Internal Image URL (Export)", "Variant Image URL"),
            "shop_id": (),
        },
        categories_joined_by=";",
        variants={"same_id": False, "kind": "Item", "product_kinds": ["Product"]},
        pair_texts=("Options",),
        no_attributes=r"item|type|sku|options|inventory .*|.*price|current stock|low stock|custom fields|tax.*|.*url.*|"
        r"image .*|.*image url.*|is visible|is featured|warranty|weight|width|height|depth|.*shipping.*|.*tariff.*|"
        r"bin picking.*|mpn|upc.*|gtin.*|sort order|search .*|page title|meta .*|minimum .*|maximum .*|availability.*|"
        r"condition|show .*|youtube id|channels|track.*|origin.*|harmonized .*",
    ),
    Export(
        name="Amazon listings",
        needs=("item-name", "seller-sku"),
        roles={
            "product_id": ("seller-sku",),
            "title": ("item-name",),
            "description": ("item-description",),
            "image_uris": ("image-url",),
            "shop_id": (),
        },
        no_attributes=r"listing-id|.*price.*|quantity|open-date|item-is-marketplace|product-id.*|zshop-.*|item-note|"
        r"item-condition|asin\d?|will-ship-.*|expedited-.*|bid-for-.*|add-delete|pending-quantity|fulfillment-channel|"
        r"merchant-shipping-group|status|seller-sku|business .*|minimum .*",
    ),
    Export(
        name="Amazon inventory template",
        needs=("item_sku", "item_name"),
        roles={
            "product_id": ("item_sku",),
            "title": ("item_name",),
            "description": ("product_description", "bullet_point{N}"),
            "category": ("item_type", "feed_product_type"),
            "image_uris": ("main_image_url", "other_image_url{N}"),
            "shop_id": (),
        },
        no_attributes=r"external_product_id.*|.*price.*|quantity|update_delete|parent.*|relationship_type|variation_theme|"
        r".*image.*|fulfillment_.*|condition_.*|.*_date|currency|merchant_.*|max_.*|item_package_.*|generic_keywords\d?|"
        r"bullet_point\d?|recommended_browse_nodes|feed_product_type|part_number",
    ),
    Export(
        name="Akeneo",
        needs=("sku|identifier", "categories", "enabled", "family"),
        roles={
            "product_id": ("sku", "identifier"),
            "title": ("name", "name-{*}"),
            "description": ("description", "description-{*}"),
            "category": ("categories",),
            "image_uris": ("image", "picture", "main_image", "picture-{*}"),
            "shop_id": (),
        },
        categories_joined_by=",",
        no_attributes=r"enabled|family|groups|parent|.*_association.*|.*-(groups|products|product_models)|price.*|"
        r"created|updated",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognised:
    """An export with the columns that a file has."""

    name: str
    roles: dict[str, list[str]]
    """Key of `source.mapping` -> columns and templates; empty: the file has no such column, or none is to be taken."""
    variants: dict[str, object]
    pair_texts: list[str]
    pair_columns: dict[str, str]
    no_attributes: frozenset[str]
    attributes: dict[str, str]
    """Columns that are attributes whatever they are called -> their usual name."""
    joined_by: str
    """What stands between several values of a pair."""
    categories_joined_by: str
    """What stands between several category paths."""

    def columns(self) -> set[str]:
        """Return all columns that the mapping of texts and pictures reads."""
        selectors = [selector for found in self.roles.values() for selector in found]
        return {name for selector in selectors for name in re.findall(r"\{([^{}]+)\}", selector) or [selector]}


def recognise(names: Sequence[str]) -> Recognised | None:
    """Return the export that has these columns; None if it is none that is known."""
    known = {_plain(name): name for name in reversed(names)}
    export = next(
        (e for e in EXPORTS if all(any(_plain(n) in known for n in need.split("|")) for need in e.needs)), None
    )
    if export is None:
        return None
    roles = {role: [c for form in forms for c in _columns(form, known)] for role, forms in export.roles.items()}
    pattern = re.compile(_plain(export.no_attributes) or "(?!)")
    parent = str(export.variants.get("parent", ""))
    variants = {} if parent and _plain(parent) not in known else export.variants
    return Recognised(
        name=export.name,
        joined_by=export.joined_by,
        categories_joined_by=export.categories_joined_by,
        roles=roles | {role: roles[role][:1] for role in ONE_COLUMN & set(roles)},
        attributes={known[_plain(name)]: to for name, to in export.attributes.items() if _plain(name) in known},
        variants={
            key: known.get(_plain(value), "" if key == "view" else value) if isinstance(value, str) else value
            for key, value in variants.items()
        },
        pair_texts=[known[_plain(text)] for text in export.pair_texts if _plain(text) in known],
        pair_columns={
            name: value
            for forms in export.pair_columns
            for name, value in zip(*(_columns(form, known) for form in forms), strict=False)
        },
        no_attributes=frozenset(name for name in names if pattern.fullmatch(_plain(name))),
    )


def _plain(name: str) -> str:
    """Return a column's name as it is compared: `g:image link` is image_link, as in the templates of Google."""
    return re.sub("[ _-]+", "_", name.strip().casefold().removeprefix("g:"))


def header_names() -> frozenset[str]:
    """Return the names, in lower case, by which an export's header can be told from lines above it."""
    return frozenset(name for export in EXPORTS for need in export.needs for name in need.split("|"))


def _columns(form: str, known: Mapping[str, str]) -> list[str]:
    """Return the file's columns of a form: its own, `{N}` numbered, `{*}` with any end; or the template that it is."""
    plain = _plain(form)
    if "{n}" in plain or "{*}" in plain:
        pattern = re.escape(plain).replace(r"\{n\}", r"\d+").replace(r"\{\*\}", ".+")
        return sorted((name for key, name in known.items() if re.fullmatch(pattern, key)), key=_in_order)
    if named := re.findall(r"\{([^{}]+)\}", form):
        if not all(_plain(name) in known for name in named):
            return []
        return [re.sub(r"\{([^{}]+)\}", lambda match: "{" + known[_plain(match[1])] + "}", form)]
    return [known[plain]] if plain in known else []


def _in_order(name: str) -> tuple[int, str]:
    number = re.search(r"\d+", name)
    return (int(number[0]) if number else 0), name
