"""Units of measurement: their spellings in product texts, their dimensions, and the conversion by pint.

Shops write units in many ways (``"``, in, inch, inches, Zoll), and some of them mean something else in pint's own
registry (``ct`` is the carat there, ``pt`` the pint). The table of spellings here is what is read; pint knows the
dimensions and factors. What has no dimension in pint, but must not be mixed up in a catalog (pieces, bytes, per cent,
karats, turns), has its own.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_OWN = (
    *("piece = [count]", "dozen = 12 * piece", "page = [page]", "karat = [fineness]", "percent_of = [share]"),
    *("turn_per_minute = [rotation]", "octet = [information]", "octet_per_second = octet / second"),
    *(
        "bit_per_second = octet_per_second / 8",
        "level_decibel = [level]",
        "angle_degree = [arc]",
        "picture_point = [dot]",
    ),
)
"""Units with dimensions of their own, in pint's notation."""

_SPELLINGS = {
    # lengths
    "micrometer": "µm um micron microns",
    "millimeter": "mm millimeter millimeters millimetre millimetres millimètres mms мм 毫米 ミリ ミリメートル مم",
    "centimeter": "cm centimeter centimeters centimetre centimetres zentimeter centimètres cms centimetri centímetros "
    "см 厘米 公分 センチ センチメートル سم",
    "decimeter": "dm",
    "meter": "m meter meters metre metres mètre mètres mtr mtrs metro metri metros м 米 メートル متر",
    "kilometer": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches \" '' zoll pouce pouces pulgada pulgadas pollici дюйм дюйма дюймов 英寸 インチ بوصة",
    "foot": "ft foot feet ' pied pieds fuß pies",
    "yard": "yd yds yard yards",
    "mile": "mi mile miles",
    # masses
    "milligram": "mg milligram milligrams",
    "gram": "g gr gm gms gram grams gramm gramme grammes gramos grammi г гр 克 グラム غرام جرام",
    "kilogram": "kg kgs kilo kilos kilogram kilograms kilogramm kilogramme kilogrammes "
    "кг 公斤 千克 キログラム キロ كجم كغ",
    "metric_ton": "tonne tonnes",
    "pound": "lb lbs pound pounds pfund #",
    "ounce": "oz ounce ounces unze unzen",
    "carat": "cts carat carats",
    # volumes
    "milliliter": "ml milliliter milliliters millilitre millilitres mls cc ccm cm³ cm3 мл 毫升 ミリリットル مل",
    "centiliter": "cl centiliter centilitre",
    "deciliter": "dl",
    "liter": "l ltr ltrs lt liter liters litre litres litro litros litri л 升 リットル لتر",
    "meter ** 3": "m³ m3 cbm",
    "gallon": "gal gals gallon gallons",
    "quart": "qt qts quart quarts",
    "pint": "pint pints",
    "fluid_ounce": "floz fl-oz fl_oz fluid-ounce",
    "foot ** 3": "cu-ft cuft ft³ ft3 cubic-feet cubic-foot",
    "inch ** 3": "cu-in cuin in³ in3 cubic-inch cubic-inches",
    # areas
    "millimeter ** 2": "mm² mm2 sqmm sq-mm",
    "centimeter ** 2": "cm² cm2 sqcm sq-cm",
    "meter ** 2": "m² m2 qm sqm sq-m square-meter square-meters square-metre square-metres",
    "foot ** 2": "sqft sq-ft ft² ft2 square-feet square-foot",
    "inch ** 2": "sq-in sqin in² in2 square-inch square-inches",
    # times
    "nanosecond": "ns",
    "millisecond": "ms msec",
    "second": "s sec secs second seconds sekunde sekunden",
    "minute": "min mins minute minutes minuten",
    "hour": "h hr hrs hour hours stunde stunden heures",
    "day": "day days tag tage jours",
    "week": "week weeks woche wochen",
    "month": "month months monat monate mois",
    "year": "yr yrs year years jahr jahre ans",
    # frequencies and turns
    "hertz": "hz hertz",
    "kilohertz": "khz",
    "megahertz": "mhz",
    "gigahertz": "ghz",
    "turn_per_minute": "rpm r/min u/min tr/min",
    # temperatures
    "degree_Celsius": "°c ℃ celsius degc",
    "degree_Fahrenheit": "°f ℉ fahrenheit degf",
    "kelvin": "kelvin",
    # electricity, power, light, sound
    "millivolt": "mv",
    "volt": "v volt volts vac vdc",
    "kilovolt": "kv",
    "milliampere": "ma",
    "ampere": "a amp amps ampere amperes",
    "milliampere_hour": "mah",
    "ampere_hour": "ah",
    "milliwatt": "mw",
    "watt": "w watt watts",
    "kilowatt": "kw",
    "horsepower": "hp bhp",
    "metric_horsepower": "ps",
    "volt_ampere": "va",
    "kilovolt_ampere": "kva",
    "watt_hour": "wh",
    "kilowatt_hour": "kwh",
    "british_thermal_unit": "btu",
    "joule": "j joule joules",
    "kilojoule": "kj",
    "kilocalorie": "kcal",
    "ohm": "ω ohm ohms",
    "kiloohm": "kω kohm",
    "microfarad": "µf uf",
    "lumen": "lm lumen lumens",
    "candela": "cd candela",
    "lux": "lux",
    "level_decibel": "db dba decibel decibels",
    # forces, pressures, speeds
    "newton": "n newton newtons",
    "kilonewton": "kn",
    "newton * meter": "nm n·m",
    "bar": "bar bars",
    "pascal": "pa",
    "kilopascal": "kpa",
    "megapascal": "mpa",
    "pound_force_per_square_inch": "psi",
    "kilometer / hour": "km/h kmh kph",
    "meter / second": "m/s",
    "mile / hour": "mph",
    "gram / meter ** 2": "gsm g/m² g/m2",
    "denier": "den denier",
    "tex": "tex",
    # information
    "octet": "byte bytes",
    "kilooctet": "kb kilobyte kilobytes ko",
    "megaoctet": "mb megabyte megabytes mo",
    "gigaoctet": "gb gig gigabyte gigabytes go гб",
    "teraoctet": "tb terabyte terabytes",
    "kilobit_per_second": "kbps kbit/s",
    "megabit_per_second": "mbps mbit/s mb/s",
    "gigabit_per_second": "gbps gbit/s gb/s",
    "megaoctet_per_second": "mbyte/s",
    # what has no dimension in physics
    "picture_point": "px pixel pixels",
    "megapicture_point": "mp mpx megapixel megapixels",
    "percent_of": "% percent pct",
    "angle_degree": "° degree degrees deg grad",
    "karat": "k kt karat karats",
    "page": "page pages seiten",
    "piece": "pc pcs piece pieces ea each unit units ct count pk pack packs box boxes carton cartons "
    "set sets sheet sheets stück stk st teilig tlg teile pièces pièce pezzi pz piezas 個 枚 本 入 个 件 шт قطعة",
    "dozen": "dozen dz doz",
}  # fmt: skip
"""The unit in pint's notation -> its spellings; ``-`` between two words is a space, a hyphen or nothing."""

_LETTERS = {"M": "meter", "K": "kelvin", "A": "ampere"}
"""Capital letters that are units where nothing else can be meant (:func:`unit_of_attribute`). In texts they are no
units: they are also sizes, thousands and grades."""

_EXACT = {"MB/s": "megaoctet_per_second", "GB/s": "gigaoctet_per_second", **dict.fromkeys(_LETTERS)}
"""Spellings whose case counts, with their units; None for what is no unit."""


@cache
def _names() -> dict[str, str]:
    """Return folded spelling -> the unit."""
    return {folded(text): unit for unit, spellings in _SPELLINGS.items() for text in spellings.split()}


@cache
def pattern() -> re.Pattern[str]:
    """Return the pattern of a unit that stands behind a number, with the unit as its group `unit`.

    A space or a hyphen may stand before it, and no letter or digit behind it, except for the sign of a product.
    """
    spellings = sorted({part for text in _SPELLINGS.values() for part in text.split()}, key=len, reverse=True)
    words = "|".join(re.escape(part).replace(r"\-", r"[\s.-]{0,2}").replace("µ", "[µμ]") for part in spellings)
    return re.compile(rf"[\s\u00a0-]?(?P<unit>{words})(?:(?<=\W)|(?![^\W_])|(?=[x×]\d))", re.IGNORECASE)


@cache
def unit_of(spelling: str) -> str | None:
    """Return the unit, in pint's notation, that a text is a spelling of; None if it is of none."""
    return _EXACT[spelling] if spelling in _EXACT else _names().get(folded(spelling))


def unit_of_attribute(spelling: str) -> str | None:
    """Return the unit that a text is a spelling of, where it is known to be a unit: in the dictionary, and alone behind
    the number of a cell. There "A" is the ampere, which it is not in texts (:func:`unit_of`)."""
    return unit_of(spelling) or _LETTERS.get(spelling)


@cache
def conversion(unit: str, to: str) -> tuple[float, float] | None:
    """Return factor and offset that turn a number of ``unit`` into one of ``to``; None for different dimensions.

    Both in pint's notation. The offset is not 0 for temperatures alone.
    """
    if unit == to:
        return 1.0, 0.0
    registry = _registry()
    first, second = registry.Unit(unit), registry.Unit(to)
    if first.dimensionality != second.dimensionality:
        return None
    at_zero, at_one = (float(registry.Quantity(number, first).to(second).magnitude) for number in (0.0, 1.0))
    return at_one - at_zero, at_zero


def convert(number: float, unit: str, to: str) -> float | None:
    """Return a number of ``unit`` as one of ``to``; None for different dimensions. Both in pint's notation."""
    found = conversion(unit, to)
    return None if found is None else number * found[0] + found[1]


def folded(text: str) -> str:
    """Return what spellings of one unit have in common: lower case, without spaces, hyphens and full stops."""
    return re.sub(r"[\s.-]+", "", text.replace("\u03bc", "\u00b5")).lower()


@cache
def conversions(to: str) -> dict[str, tuple[float, float]]:
    """Return folded spelling (:func:`folded`) -> factor and offset, for all units that convert into ``to``.

    Spellings whose case decides which unit they are (MB/s, Mb/s) are left out.
    """
    by_case = {folded(text) for text, unit in _EXACT.items() if unit}
    found = {text: conversion(unit, to) for text, unit in _names().items() if text not in by_case}
    return {text: pair for text, pair in found.items() if pair is not None}


@cache
def _registry() -> Any:
    import pint  # takes a tenth of a second

    registry: Any = pint.UnitRegistry(on_redefinition="ignore")
    for definition in _OWN:
        registry.define(definition)
    return registry
