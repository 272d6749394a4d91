"""The words of the generated marketplace's texts, in five languages.

Every language has as many words in every place as English, so that the same random numbers give the same products with
translated texts. Adjectives and colours agree with the noun of a title as the language wants it; German joins material
and noun to a word; Japanese writes most words without spaces between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Word(NamedTuple):
    """A word, alone and beside a noun."""

    alone: str
    forms: tuple[str, ...] = ()
    """The word beside a noun, by the noun's form; empty: it does not change."""

    def beside(self, noun: Noun) -> str:
        return self.forms[noun.form] if self.forms else self.alone


class Noun(NamedTuple):
    text: str
    form: int = 0
    """German: masculine, feminine, neuter, plural. French and Spanish: masculine, feminine, and both in plural."""


@dataclass(frozen=True, slots=True)
class Title:
    """The parts of a title."""

    brand: str
    adjective: Word
    noun: Noun
    color: Word | None
    material: Material | None
    extra: str
    """Empty for none."""


class Material(NamedTuple):
    text: str
    """The word in a sentence."""
    in_title: str
    """The word beside the noun of a title."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The words of a language. The word lists have the order and the length of the English ones."""

    colors: dict[str, tuple[Word, ...]]
    """Canonical value -> three words; the first is also a merchant's spelling of it."""
    materials: dict[str, tuple[Material, ...]]
    """Canonical value -> two words; the first is also a merchant's spelling of it."""
    origins: dict[str, str]
    """Canonical value -> a merchant's spelling of it; in English none differs."""
    nouns: dict[str, Noun]
    """English noun -> noun."""
    adjectives: tuple[Word, ...]
    extras: tuple[str, ...]
    color_phrases: tuple[str, ...]
    material_phrases: tuple[str, ...]
    fillers: tuple[str, ...]
    conjunction: str
    """Stands between two materials."""
    between_sentences: str
    title: Callable[[Title], str]

    def spelled(self, value: str) -> str:
        """Return how a merchant writes a canonical value."""
        if value in self.colors:
            return _capital(self.colors[value][0].alone)
        if value in self.materials:
            return _capital(self.materials[value][0].text)
        return self.origins.get(value, value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words(text: str) -> tuple[Word, ...]:
    """Return the words of a list.

    `lila` never changes, `vert/verte/verts/vertes` has four forms, `blau*` those of a German adjective; `黒/黒の` is
    one word alone and another beside a noun.
    """
    words = []
    for word in text.split(", "):
        alone, *others = word.split("/")
        if stem := alone.removesuffix("*") if alone.endswith("*") else "":
            alone, others = stem, [stem + ending for ending in ("er", "e", "es", "e")]
        elif len(others) > 1:
            others = [alone, *others]
        words.append(Word(alone, tuple(others)))
    return tuple(words)


def _by_value(values: tuple[str, ...], lines: str) -> dict[str, list[str]]:
    """Return canonical value -> its line, split at commas."""
    return {value: line.strip().split(", ") for value, line in zip(values, lines.strip().splitlines(), strict=True)}


def _colors(lines: str) -> dict[str, tuple[Word, ...]]:
    return {value: _words(", ".join(words)) for value, words in _by_value(COLORS, lines).items()}


def _materials(lines: str) -> dict[str, tuple[Material, ...]]:
    """Each word is `in a sentence`, or `in a sentence/in a title`."""
    return {
        value: tuple(Material(word.partition("/")[0], word.partition("/")[2] or word) for word in words)
        for value, words in _by_value(MATERIALS, lines).items()
    }


def _nouns(text: str) -> dict[str, Noun]:
    """Return English noun -> noun; `chemise:1` has form 1."""
    nouns = [Noun(word.partition(":")[0], int(word.partition(":")[2] or 0)) for word in text.split(", ")]
    return dict(zip(NOUNS, nouns, strict=True))


COLORS = ("Black", "White", "Grey", "Red", "Blue", "Green", "Yellow", "Pink", "Purple", "Brown")
MATERIALS = ("Cotton", "Denim", "Leather", "Linen", "Silk", "Wool")
NOUNS = (
    *("shirt", "blouse", "sweater", "trousers", "pants", "skirt", "sneakers", "boots", "loafers"),
    *("bag", "tote", "backpack", "cushion", "throw", "curtain"),
)


def _adjective_first(title: Title) -> str:
    """brand, adjective, colour, material, noun"""
    color, material = title.color, title.material
    words = [title.brand, title.adjective.beside(title.noun), color.beside(title.noun) if color else ""]
    words += [material.in_title if material else "", title.noun.text, title.extra]
    return " ".join(filter(None, words))


def _joined_noun(title: Title) -> str:
    """brand, adjective, colour, material and noun in a word"""
    color, noun = title.color, title.noun.text
    if title.material:
        joined = title.material.in_title
        noun = joined + (noun if joined.endswith("-") else noun.lower())
    words = [title.brand, title.adjective.beside(title.noun), color.beside(title.noun) if color else "", noun]
    return " ".join(filter(None, [*words, title.extra]))


def _noun_first(title: Title) -> str:
    """brand, noun, adjective, colour, material"""
    color, material = title.color, title.material
    words = [title.brand, title.noun.text, title.adjective.beside(title.noun)]
    words += [color.beside(title.noun) if color else "", material.in_title if material else "", title.extra]
    return " ".join(filter(None, words))


def _without_spaces(title: Title) -> str:
    """brand, then adjective, colour, material and noun without spaces"""
    color, material = title.color, title.material
    parts = [title.adjective.alone, color.beside(title.noun) if color else "", material.in_title if material else ""]
    return " ".join(filter(None, [title.brand, "".join([*parts, title.noun.text]), title.extra]))


ENGLISH = Vocabulary(
    colors=_colors("""
        black, jet black, onyx
        white, ivory, snow white
        grey, gray, charcoal
        red, crimson, scarlet
        blue, navy, cobalt
        green, olive, emerald
        yellow, mustard, lemon
        pink, rose, blush
        purple, violet, plum
        brown, chestnut, mocha"""),
    materials=_materials("""
        cotton, combed cotton
        denim, jean cloth
        leather, nappa
        linen, flax
        silk, mulberry silk
        wool, merino"""),
    origins={},
    nouns={noun: Noun(noun) for noun in NOUNS},
    adjectives=_words("classic, slim, relaxed, everyday, lightweight, premium, vintage, cozy, modern, bold"),
    extras=("with pockets", "for women", "for men", "unisex", "new season", "limited edition", "2 pack", "size M"),
    color_phrases=("Comes in {}.", "Colour: {}.", "Dyed in a deep {}.", "Shown in {}."),
    material_phrases=("Made from {}.", "Material: {}.", "Crafted in {}.", "A blend to love: {}."),
    fillers=(
        "Easy to care for.",
        "Ships within two days.",
        "A favourite of our customers.",
        "Fits true to size.",
        "Designed to last for years.",
        "Free returns within 30 days.",
        "Goes with everything you own.",
        "<br>Gift wrapping on request!",
    ),
    conjunction=" and ",
    between_sentences=" ",
    title=_adjective_first,
)

GERMAN = Vocabulary(
    colors=_colors("""
        schwarz*, tiefschwarz*, onyxfarben*
        weiß*, elfenbeinfarben*, schneeweiß*
        grau*, hellgrau*, anthrazit
        rot*, karminrot*, scharlachrot*
        blau*, marineblau*, kobaltblau*
        grün*, olivgrün*, smaragdgrün*
        gelb*, senffarben*, zitronengelb*
        rosa, rosenfarben*, altrosa
        lila, violett*, pflaumenfarben*
        braun*, kastanienbraun*, mokkafarben*"""),
    materials=_materials("""
        Baumwolle/Baumwoll, gekämmte Baumwolle/Baumwoll
        Jeansstoff/Jeans, Denim/Denim-
        Leder/Leder, Nappa/Nappa
        Leinen/Leinen, Flachs/Flachs
        Seide/Seiden, Maulbeerseide/Maulbeerseiden
        Wolle/Woll, Merino/Merino"""),
    origins={"India": "Indien", "Italy": "Italien", "Turkey": "Türkei"},
    nouns=_nouns(
        "Hemd:2, Bluse:1, Pullover, Hose:1, Stoffhose:1, Rock, Sneaker:3, Stiefel:3, Slipper:3, "
        "Tasche:1, Shopper, Rucksack, Kissen:2, Überwurf, Vorhang"
    ),
    adjectives=_words(
        "klassisch*, schmal*, locker*, alltagstauglich*, leicht*, edl*, Vintage, gemütlich*, modern*, kühn*"
    ),
    extras=("mit Taschen", "für Damen", "für Herren", "unisex", "neue Saison", "Sonderedition", "2er-Pack", "Größe M"),
    color_phrases=("Erhältlich in {}.", "Farbe: {}.", "In tiefem {} gefärbt.", "Abgebildet in {}."),
    material_phrases=("Hergestellt aus {}.", "Material: {}.", "Gearbeitet aus {}.", "Eine Mischung zum Verlieben: {}."),
    fillers=(
        "Leicht zu pflegen.",
        "Versand innerhalb von zwei Tagen.",
        "Ein Liebling unserer Kunden.",
        "Fällt der Größe entsprechend aus.",
        "Für viele Jahre gemacht.",
        "Kostenlose Rückgabe innerhalb von 30 Tagen.",
        "Passt zu allem, was Sie haben.",
        "<br>Auf Wunsch als Geschenk verpackt!",
    ),
    conjunction=" und ",
    between_sentences=" ",
    title=_joined_noun,
)

FRENCH = Vocabulary(
    colors=_colors("""
        noir/noire/noirs/noires, noir de jais, onyx
        blanc/blanche/blancs/blanches, ivoire, blanc neige
        gris/grise/gris/grises, gris clair, anthracite
        rouge/rouge/rouges/rouges, cramoisi/cramoisie/cramoisis/cramoisies, écarlate/écarlate/écarlates/écarlates
        bleu/bleue/bleus/bleues, bleu marine, cobalt
        vert/verte/verts/vertes, vert olive, émeraude
        jaune/jaune/jaunes/jaunes, moutarde, citron
        rose/rose/roses/roses, rose poudré, vieux rose
        violet/violette/violets/violettes, mauve/mauve/mauves/mauves, prune
        marron, châtain/châtaine/châtains/châtaines, moka"""),
    materials=_materials("""
        coton/en coton, coton peigné/en coton peigné
        denim/en denim, toile de jean/en toile de jean
        cuir/en cuir, nappa/en nappa
        lin/en lin, toile de lin/en toile de lin
        soie/en soie, soie de mûrier/en soie de mûrier
        laine/en laine, mérinos/en mérinos"""),
    origins={"China": "Chine", "India": "Inde", "Italy": "Italie", "Turkey": "Turquie"},
    nouns=_nouns(
        "chemise:1, blouse:1, pull, pantalon, pantalon habillé, jupe:1, baskets:3, bottes:3, mocassins:2, "
        "sac, cabas, sac à dos, coussin, plaid, rideau"
    ),
    adjectives=_words(
        "classique/classique/classiques/classiques, ajusté/ajustée/ajustés/ajustées, ample/ample/amples/amples, "
        "quotidien/quotidienne/quotidiens/quotidiennes, léger/légère/légers/légères, haut de gamme, vintage, "
        "douillet/douillette/douillets/douillettes, moderne/moderne/modernes/modernes, "
        "audacieux/audacieuse/audacieux/audacieuses"
    ),
    extras=(
        *("avec poches", "pour femme", "pour homme", "unisexe", "nouvelle saison", "édition limitée", "lot de 2"),
        "taille M",
    ),
    color_phrases=("Disponible en {}.", "Couleur : {}.", "Teint dans un {} profond.", "Présenté en {}."),
    material_phrases=("Fabriqué en {}.", "Matière : {}.", "Confectionné en {}.", "Un mélange à adorer : {}."),
    fillers=(
        "Facile d'entretien.",
        "Expédié sous deux jours.",
        "Un favori de nos clients.",
        "Taille normalement.",
        "Conçu pour durer des années.",
        "Retours gratuits sous 30 jours.",
        "S'accorde avec tout ce que vous avez.",
        "<br>Emballage cadeau sur demande !",
    ),
    conjunction=" et ",
    between_sentences=" ",
    title=_noun_first,
)

SPANISH = Vocabulary(
    colors=_colors("""
        negro/negra/negros/negras, negro azabache, ónix
        blanco/blanca/blancos/blancas, marfil, blanco nieve
        gris/gris/grises/grises, gris claro, antracita
        rojo/roja/rojos/rojas, carmesí, escarlata
        azul/azul/azules/azules, azul marino, cobalto
        verde/verde/verdes/verdes, verde oliva, esmeralda
        amarillo/amarilla/amarillos/amarillas, mostaza, limón
        rosa, rosado/rosada/rosados/rosadas, rosa palo
        morado/morada/morados/moradas, violeta, ciruela
        marrón/marrón/marrones/marrones, castaño/castaña/castaños/castañas, moca"""),
    materials=_materials("""
        algodón/de algodón, algodón peinado/de algodón peinado
        denim/de denim, tela vaquera/de tela vaquera
        cuero/de cuero, napa/de napa
        lino/de lino, fibra de lino/de fibra de lino
        seda/de seda, seda de morera/de seda de morera
        lana/de lana, merino/de merino"""),
    origins={"Italy": "Italia", "Turkey": "Turquía"},
    nouns=_nouns(
        "camisa:1, blusa:1, jersey, pantalones:2, pantalón de vestir, falda:1, zapatillas:3, botas:3, mocasines:2, "
        "bolso, bolsa de mano:1, mochila:1, cojín, manta:1, cortina:1"
    ),
    adjectives=_words(
        "clásico/clásica/clásicos/clásicas, entallado/entallada/entallados/entalladas, "
        "holgado/holgada/holgados/holgadas, diario/diaria/diarios/diarias, "
        "ligero/ligera/ligeros/ligeras, prémium, vintage, acogedor/acogedora/acogedores/acogedoras, "
        "moderno/moderna/modernos/modernas, "
        "atrevido/atrevida/atrevidos/atrevidas"
    ),
    extras=(
        *("con bolsillos", "para mujer", "para hombre", "unisex", "nueva temporada", "edición limitada", "pack de 2"),
        "talla M",
    ),
    color_phrases=("Disponible en {}.", "Color: {}.", "Teñido en un {} intenso.", "Se muestra en {}."),
    material_phrases=("Hecho de {}.", "Material: {}.", "Confeccionado en {}.", "Una mezcla para enamorarse: {}."),
    fillers=(
        "Fácil de cuidar.",
        "Se envía en dos días.",
        "Uno de los favoritos de nuestros clientes.",
        "Talla correctamente.",
        "Diseñado para durar años.",
        "Devoluciones gratuitas en 30 días.",
        "Combina con todo lo que tienes.",
        "<br>¡Envuelto para regalo si lo pide!",
    ),
    conjunction=" y ",
    between_sentences=" ",
    title=_noun_first,
)

JAPANESE = Vocabulary(
    colors=_colors("""
        黒/黒の, ブラック, 漆黒/漆黒の
        白/白の, アイボリー, 純白/純白の
        グレー, 灰色/灰色の, チャコール
        赤/赤い, クリムゾン, 緋色/緋色の
        青/青い, ネイビー, コバルト
        緑/緑の, オリーブ, エメラルド
        黄色/黄色い, マスタード, レモン
        ピンク, ローズ, 桃色/桃色の
        紫/紫の, バイオレット, プラム
        茶色/茶色の, 栗色/栗色の, モカ"""),
    materials=_materials("""
        綿, コーマコットン
        デニム, ジーンズ生地
        革/革製, ナッパ
        麻, リネン
        シルク, 桑絹
        ウール, メリノ"""),
    origins={"China": "中国", "India": "インド", "Italy": "イタリア", "Portugal": "ポルトガル", "Turkey": "トルコ"},
    nouns=_nouns(
        "シャツ, ブラウス, セーター, ズボン, パンツ, スカート, スニーカー, ブーツ, ローファー, "
        "バッグ, トートバッグ, リュック, クッション, スロー, カーテン"
    ),
    adjectives=_words(
        "クラシックな, 細身の, ゆったりした, 普段使いの, 軽量な, 上質な, ヴィンテージ, 心地よい, モダンな, 大胆な"
    ),
    extras=("ポケット付き", "レディース", "メンズ", "男女兼用", "新作", "限定版", "2枚組", "Mサイズ"),
    color_phrases=("{}からお選びいただけます。", "カラー：{}。", "深い{}に染めました。", "写真は{}です。"),
    material_phrases=("{}で作られています。", "素材：{}。", "{}を使って仕立てました。", "魅力的な混紡：{}。"),
    fillers=(
        "お手入れが簡単です。",
        "2日以内に発送します。",
        "お客様に人気の商品です。",
        "サイズ表どおりの着心地です。",
        "長くお使いいただけるデザインです。",
        "30日以内は返品無料です。",
        "お手持ちのどんなものにも合います。",
        "<br>ギフト包装も承ります！",
    ),
    conjunction="と",
    between_sentences="",
    title=_without_spaces,
)

LANGUAGES = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "ja": JAPANESE}
"""ISO 639-1 code -> vocabulary."""
