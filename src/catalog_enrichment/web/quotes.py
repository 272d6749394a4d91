"""Evidence in a product's texts: the part of the title or description that a proposer quotes, and evidence in words.

A proposer that extracts values quotes a text word for word. Others write what they like as evidence, and a text may
have changed since, so evidence that no text has is told in a sentence. Nothing here makes HTML: pages get the parts of
a text and escape each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Parts = tuple[str, str, str]
"""A text in three parts: before the quote, the quote as the text has it, after the quote."""

TITLE, DESCRIPTION = "title", "description"

LONGEST_LOOSE = 300
"""Characters of the longest quote that is also looked for with other spaces and other case: a product's description can
be long, and so can what a model writes."""

LONGEST_TOLD = 300
"""Characters of evidence in a sentence; longer evidence ends with an ellipsis."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of a value, looked for in the product's title and description."""

    text: str
    """As the proposer gave it; empty if it gave none."""
    marked: Mapping[str, Parts]
    """:data:`TITLE` or :data:`DESCRIPTION` -> the parts of this text, with the evidence as the quote; empty if neither
    text has it."""

    @classmethod
    def of(cls, evidence: str | None, title: str | None, description: str | None) -> Evidence:
        """Return the evidence with the first place that has it.

        A place where no word is cut goes before others, then the place with the evidence's own case and spaces, then
        the title.
        """
        text = (evidence or "").strip()
        texts = {TITLE: title or "", DESCRIPTION: description or ""}
        for pattern in _patterns(text):
            for name, whole in texts.items():
                if found := pattern.search(whole):
                    return cls(text, {name: (whole[: found.start()], found[0], whole[found.end() :])})
        return cls(text, {})

    @property
    def sentence(self) -> str:
        """A sentence with the evidence; empty without evidence."""
        if not self.text:
            return ""
        quote = next((parts[1] for parts in self.marked.values()), self.text)
        words = _cut(" ".join(quote.split()))
        return f'The text says "{words}".' if self.marked else f'The model gives as evidence "{words}".'

    @property
    def beside(self) -> str:
        """The sentence to show beside the value: empty where the evidence is marked in a text."""
        return "" if self.marked else self.sentence


def excerpt(parts: Parts, around: int = 60) -> Parts:
    """Return the quote with about ``around`` characters before and after it, whole words; an ellipsis stands for the
    rest of the text."""
    before, quote, after = parts
    if len(before) > around:
        before = "…" + _from_a_space(before[-around:])
    if len(after) > around:
        after = _from_a_space(after[:around][::-1])[::-1] + "…"
    return before, _cut(quote), after


def _from_a_space(text: str) -> str:
    """Return the text from its first space on; the whole text if it has none."""
    space = re.search(r"\s", text)
    return text[space.start() :] if space else text


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TOLD else text[: LONGEST_TOLD - 1] + "…"


def _patterns(quote: str) -> Iterator[re.Pattern[str]]:
    """Yield patterns that find the quote, the most literal first; none for an empty quote."""
    if not quote:
        return
    literal = re.escape(quote)
    if len(quote) > LONGEST_LOOSE:
        yield re.compile(literal)
        return
    loose = r"\s+".join(map(re.escape, quote.split()))
    start = r"(?<!\w)" if re.match(r"\w", quote) else ""
    end = r"(?!\w)" if re.match(r"\w", quote[-1]) else ""
    yield re.compile(start + literal + end)
    yield re.compile(start + loose + end, re.IGNORECASE)
    yield re.compile(literal)
    yield re.compile(loose, re.IGNORECASE)
