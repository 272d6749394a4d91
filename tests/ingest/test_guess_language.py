"""The language of products' texts, told from few words, and from the codes of a language column."""

from __future__ import annotations

import random

import pytest

from catalog_enrichment.demo import marketplace
from catalog_enrichment.ingest import guess_language
from catalog_enrichment.ingest.guess_language import Languages, of_codes, of_texts, votes_of

VOTES = guess_language._VOTES

TITLES = {
    "en": "Waterproof jacket with a hood | Set of 2 cushions for the sofa | Women's linen shirt",
    "de": "Wasserdichte Jacke mit Kapuze | 2er-Set Kissen für das Sofa | Leinenhemd Damen",
    "fr": "Veste imperméable avec capuche | Lot de 2 coussins pour le canapé | Chemise en lin femme",
    "es": "Chaqueta impermeable con capucha | Juego de 2 cojines para el sofá | Camisa de lino mujer",
    "it": "Giacca impermeabile con cappuccio | Set di 2 cuscini per il divano | Camicia di lino donna",
    "pt": "Casaco impermeável com capuz | Conjunto de 2 almofadas para o sofá | Camisa em linho mulher",
    "nl": "Waterdichte jas met capuchon | Set van 2 kussens voor de bank | Linnen overhemd dames",
    "pl": "Kurtka wodoodporna z kapturem | Zestaw 2 poduszek na sofę | Koszula damska z lnu",
    "sv": "Vattentät jacka med huva | Set med 2 kuddar för soffan | Linneskjorta dam",
    "da": "Vandtæt jakke med hætte | Sæt af 2 puder til sofaen | Hørskjorte dame",
    "tr": "Kapüşonlu su geçirmez ceket erkek | Kanepe için 2 yastık | Keten gömlek kadın",
    "ja": "防水ジャケット フード付き | ソファ用クッション2個セット | リネンシャツ レディース",
    "zh": "防水连帽夹克 | 沙发靠垫两件套 | 亚麻衬衫女士",
    "ko": "방수 재킷 후드 | 소파 쿠션 2개 세트 | 린넨 셔츠 여성",
    "ru": "Куртка водонепроницаемая | Набор из 2 подушек | Рубашка женская",
    "el": "Αδιάβροχο μπουφάν | Σετ 2 μαξιλάρια | Πουκάμισο γυναικείο",
    "ar": "سترة مقاومة للماء | طقم وسائد | قميص كتان",
    "he": "מעיל עמיד במים | סט כריות | חולצת פשתן",
    "th": "แจ็คเก็ตกันน้ำ | หมอนอิง | เสื้อเชิ้ต",
    "hi": "पानी रोधक जैकेट | कुशन सेट | लिनन शर्ट",
}  # fmt: skip


@pytest.mark.parametrize("language", TITLES)
def test_a_language_is_told_by_its_titles(language: str) -> None:
    found = of_texts(TITLES[language].split(" | ") * 5)
    assert found.main == language
    assert found.mostly_english == (language == "en")
    assert found.english == (language == "en")
    assert guess_language.NAMES[language] in found.why


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "ja"])
@pytest.mark.parametrize("described", [True, False])
def test_the_generated_products_are_told_by_title_and_by_both_texts(language: str, described: bool) -> None:
    rows = [
        marketplace._row(listing, language, random.Random(1))
        for listing in marketplace._listings(300, random.Random(1))
    ]
    found = of_texts(f"{row['title']} . {row['description']}" if described else row["title"] for row in rows)
    assert (found.main, found.mostly_english) == (language, language == "en")


def test_a_language_without_a_list_is_noticed_by_its_letters() -> None:
    finnish = ["Vedenpitävä takki jossa hyvä vetoketju ja ylös käännetty kaulus", "Kestävä pöytä ja käsintehty jyvä"]
    found = of_texts(finnish * 10)
    assert (found.main, found.mostly_english) == (guess_language.UNKNOWN, False)


def test_names_and_numbers_tell_no_language_and_count_as_english() -> None:
    for texts in ([], [""] * 9, ["iPhone 15 Pro Max 256GB", "Nestlé KitKat 4x", "A-1234", "42"] * 50):
        assert of_texts(texts) == Languages("en", 1.0, "the texts have too few words by which a language can be told")
    names = ["Sony WH-1000XM5"] * 395
    assert of_texts([*names, *["Jacke mit Kapuze"] * 4]).main == "en"
    assert of_texts([*names, *["Jacke mit Kapuze"] * 5]).main == "de"
    assert of_texts(names * 2 + ["Jacke mit Kapuze"] * 7).main == "en"  # five are less than one in a hundred


def test_a_text_votes_by_its_script_only_where_that_has_most_letters() -> None:
    assert votes_of("Jacke mit Kapuze 上着") == {"de": VOTES}
    assert votes_of("パンツ") == votes_of("すし") == votes_of("防水加工生地ズボン") == {"ja": VOTES}
    assert votes_of("防水") == {"zh": VOTES}


def test_a_word_of_several_languages_divides_its_votes() -> None:
    assert votes_of("für alle") == {"de": VOTES}
    assert votes_of("och") == votes_of("OCH") == {"sv": VOTES}
    assert votes_of("med") == {"sv": VOTES // 2, "da": VOTES // 2}
    assert votes_of("FU\u0308R") == {"de": VOTES}  # an accent that is a character of its own
    assert votes_of("Nestlé Café für") == {"de": VOTES}
    assert votes_of("3van 4de") == {}


def test_the_beginning_of_a_long_text_is_enough() -> None:
    assert of_texts(["Jacket with a hood. " * 20 + "Jacke mit Kapuze und Taschen. " * 50] * 9).main == "en"


def test_abbreviations_and_units_in_english_titles_are_no_other_language() -> None:
    titles = [
        "Tape w/Dispenser, 3M",
        "Lamp 5W, no plug",
        "Bed frame, high, w 2 boxes",
        "Stapler, Acme.com",
        "2 pads per pack",
    ]
    assert of_texts([*titles, "Lamp with plug"] * 10).english == 1


def test_a_fifth_of_other_languages_is_more_than_a_model_for_english_should_read() -> None:
    german, english = ["Jacke mit Kapuze"], ["Jacket with hood"]
    assert of_texts(german * 20 + english * 80).mostly_english
    mixed = of_texts(german * 21 + english * 79)
    assert (mixed.main, mixed.mostly_english) == ("en", False)
    assert "79% of 100 texts are English" in mixed.why


def test_the_texts_of_a_long_file_are_sampled_evenly() -> None:
    assert of_texts(["Jacket with hood"] * 30_000 + ["Jacke mit Kapuze"] * 30_000).english == pytest.approx(
        0.5, abs=0.01
    )


def test_codes_say_the_language() -> None:
    found = of_codes(["de", "de_AT", "DE-CH", "en_GB", " "])
    assert (found.main, found.english, found.mostly_english) == ("de", 0.25, False)
    assert "25%" in found.why
    assert of_codes(["en", "en-US"]).mostly_english
    assert (of_codes([]).main, of_codes([]).mostly_english) == ("en", True)
