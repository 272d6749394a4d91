"""Guesses the language of products' texts: by script, and by words that a language uses and the others hardly do.

The guess decides which recipe init_project takes, and what `default_language` is. It needs many texts, because titles
have few such words. Languages that the lists lack are noticed by their letters where these are not those of English.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

ENGLISH = "en"
UNKNOWN = "und"
"""The code of a language that is not English and not in the lists (ISO 639-2: undetermined)."""
NAMES = {
    **{"en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese"},
    **{"nl": "Dutch", "pl": "Polish", "sv": "Swedish", "da": "Danish", "tr": "Turkish", "ja": "Japanese"},
    **{"zh": "Chinese", "ko": "Korean", "ru": "Russian", "el": "Greek", "ar": "Arabic", "he": "Hebrew"},
    **{"th": "Thai", "hi": "Hindi", UNKNOWN: "unknown"},
}

_WORDS = {
    "en": "the a an in to on and with for of from within free this that is are your you our it its by or as at "
    "be has made no per plus com women men kids size",
    "de": "und mit in an für aus der die das den dem ein eine einen ist sind im zum zur von auf bei nicht oder "
    "auch wie damen herren kinder größe stück",
    "fr": "et on avec pour les des de du la le une un est dans sur au aux en par votre vous ce cette qui plus "
    "femme homme enfant taille",
    "es": "y a con de para el los las del una un es en por su al que se más sin mujer hombre niños talla",
    "it": "e a in con per il lo gli della del di una un è da su al che si più senza donna uomo bambini taglia",
    "pt": "e a com de para os as do da dos uma um é em no na por ao que se mais sem não mulher homem criança tamanho",
    "nl": "en met voor de het van een is zijn in op uit je bij niet ook naar dames heren kinderen maat",
    "pl": "a ze dla do na jest nie to się oraz od po przez damska męska dziecięcy rozmiar kolor",
    "sv": "och med för av en ett är på till från som den det inte eller dam herr barn storlek",
    "da": "og med til af en et er på fra som den det ikke eller dame herre børn størrelse",
    "tr": "on ve ile için bir bu olarak çok en da de kadın erkek çocuk beden renk",
}
"""Language -> words that its product texts often have, in lower case."""
_OWNERS: dict[str, tuple[str, ...]] = {
    word: tuple(language for language, words in _WORDS.items() if word in words.split())
    for words in _WORDS.values()
    for word in words.split()
}
"""Word -> the languages that have it."""
_SCRIPTS = {
    **{"HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh", "HANGUL": "ko", "CYRILLIC": "ru", "GREEK": "el"},
    **{"ARABIC": "ar", "HEBREW": "he", "THAI": "th", "DEVANAGARI": "hi"},
}
"""First word of a letter's name in Unicode -> the most frequent language that is written with it."""
_WORD = re.compile(r"\b[^\W\d_]+\b")
_VOTES = 2520
"""Votes of a word, which its languages divide; a multiple of 1 to 10."""
_MAX_TEXTS = 2000
_MAX_CHARS = 400
_ENOUGH = 5
"""Texts that must be told to be English or not, at least, and their share among all."""
_ENOUGH_SHARE = 0.01
_MOSTLY = 0.8
"""Share of English texts from which a model for English is enough."""
_ACCENTED = 2
"""Words with letters that English lacks, in a text without a known word, that make it a text of another language."""


@dataclass(frozen=True, slots=True)
class Languages:
    """The languages of many texts."""

    main: str
    """Code of the most frequent language; `en` where nothing could be told."""
    english: float
    """Share of English among the texts that are told to be English or not; 1 where too few are."""
    why: str

    @property
    def mostly_english(self) -> bool:
        return self.english >= _MOSTLY


def of_codes(codes: Iterable[str]) -> Languages:
    """Return the languages of products by their codes, such as `de` or `en_GB`; without any they are English."""
    counts = Counter(re.split("[-_]", code.strip().casefold())[0] for code in codes if code.strip())
    main = counts.most_common(1)[0][0] if counts else ENGLISH
    english = counts[ENGLISH] / counts.total() if counts else 1.0
    return Languages(main, english, f"the language column has {ENGLISH} in {100 * english:.0f}% of its cells")


def of_texts(texts: Iterable[str]) -> Languages:
    """Return the languages of texts, each title and description; of more than 2,000 an even sample is read."""
    given = [text for text in texts if text]
    sample = given[:: max(1, len(given) // _MAX_TEXTS)]
    votes: Counter[str] = Counter()
    is_english = []
    for text in sample:
        of_text = votes_of(text[:_MAX_CHARS])
        votes += of_text
        for_english, for_another = of_text.pop(ENGLISH, 0), max(of_text.values(), default=0)
        if for_english != for_another:
            is_english.append(for_english > for_another)
    told = len(is_english)
    if told < max(_ENOUGH, _ENOUGH_SHARE * len(sample)):
        return Languages(ENGLISH, 1.0, "the texts have too few words by which a language can be told")
    main, english = votes.most_common(1)[0][0], sum(is_english) / told
    why = f"{100 * english:.0f}% of {told:,} texts are English, the likeliest language is {NAMES[main]}"
    return Languages(main, english, f"{why}, by frequent words and letters")


def votes_of(text: str) -> Counter[str]:
    """Return language -> votes of the text's words, 2,520 each; a word of several languages divides its votes.

    A text in another script votes for the most frequent language of the script: Ukrainian is `ru`.
    """
    scripts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha())
    foreign = Counter({script: count for script, count in scripts.items() if script in _SCRIPTS})
    if 2 * foreign.total() > scripts.total():
        has_kana = foreign["HIRAGANA"] + foreign["KATAKANA"] > 0
        return Counter({"ja" if has_kana else _SCRIPTS[foreign.most_common(1)[0][0]]: _VOTES})
    words = [word.lower() for word in _WORD.findall(unicodedata.normalize("NFC", text))]
    votes: Counter[str] = Counter()
    for word in words:
        owners = _OWNERS.get(word, ())
        votes.update(dict.fromkeys(owners, _VOTES // max(1, len(owners))))
    if not votes and sum(not word.isascii() for word in words) >= _ACCENTED:
        votes[UNKNOWN] = _VOTES
    return votes
