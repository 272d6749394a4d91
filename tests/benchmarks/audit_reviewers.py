"""Simulated reviewers of the closed loop: people who judge a sample through the page's own interface.

The page is served by the job serve_audit, as a user starts it; a reviewer asks it for questions and sends verdicts over
HTTP. Two reviewers judge at the same time, each wrong in NOISE of the verdicts; an adjudicator who makes no mistakes
settles what they dispute. Which verdicts are wrong depends on the reviewer and the question alone, so that the same
sample gives the same verdicts.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

NOISE = 0.02
REVIEWERS = ("Reviewer 1", "Reviewer 2")

Truth = Mapping[tuple[str, str], frozenset[str]]
"""(product, attribute) -> right values; where it is not known there is no entry."""


@dataclass
class Person:
    """A reviewer who asks for questions and answers them over a connection that is kept open."""

    port: int
    name: str
    seconds: list[float] = field(default_factory=list)
    """Time of every verdict: from sending it to the server's answer."""

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        return self._send("GET", path, None)

    def say(self, question: Mapping[str, Any], said: tuple[str, ...], adjudicates: bool = False) -> None:
        """Send a verdict; ``said``: the answer, and the right values after it."""
        body = {"item_id": question["item_id"], "answer": said[0], "right_values": said[1:], "adjudicates": adjudicates}
        start = time.perf_counter()
        self._send("POST", "/api/verdicts", body | {"seconds": 2.0})
        self.seconds.append(time.perf_counter() - start)

    def _send(self, method: str, path: str, body: Any) -> Any:
        headers = {"X-Reviewer": quote(self.name), "Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"{method} {path} of {self.name} ended with {answer.status}: {content}")
        return content


@contextmanager
def page(command: Sequence[str]) -> Iterator[int]:
    """The port of a page that ``command`` (serve_audit) serves until the block ends."""
    process = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"review page: http://[^/]*:(\d+)/", line):
                yield int(found[1])
                return
        raise RuntimeError(f"serve_audit did not start: {''.join(lines)[-2000:]}")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def answer(question: Mapping[str, Any], truth: Truth) -> tuple[str, ...]:
    """Return the answer of a person who makes no mistake: yes, the right value, or no where there are several."""
    right = truth.get((question["product_id"], question["attribute"]))
    if right is None:
        return ("cannot_tell",)
    if question["value"] in right:
        return ("yes",)
    return ("other", *right) if question["cardinality"] == "one" and len(right) == 1 else ("no",)


def with_noise(said: tuple[str, ...], chance: random.Random) -> tuple[str, ...]:
    """Return ``said``, or in NOISE of the cases the opposite."""
    if said[0] == "cannot_tell" or chance.random() >= NOISE:
        return said
    return ("no",) if said[0] == "yes" else ("yes",)


def judge(port: int, sample_id: str, truth: Truth, known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Two reviewers and an adjudicator judge the sample; how many items, disputes and seconds per verdict.

    ``known``: attribute -> values of the dictionary. A right value that it does not have cannot be given: "no".
    """

    def says(question: Mapping[str, Any]) -> tuple[str, ...]:
        said = answer(question, truth)
        return ("no",) if said[0] == "other" and said[1] not in known[question["attribute"]] else said

    def review(name: str) -> Person:
        with closing(Person(port, name)) as person:
            while questions := person.get(f"/api/samples/{quote(sample_id)}/next?limit=50")["questions"]:
                for question in questions:
                    person.say(question, with_noise(says(question), random.Random(f"{name} {question['item_id']}")))
            return person

    with ThreadPoolExecutor(len(REVIEWERS)) as pool:
        people = list(pool.map(review, REVIEWERS))
    with closing(Person(port, "Adjudicator")) as adjudicator:
        disputed = adjudicator.get(f"/api/samples/{quote(sample_id)}/disputes")["questions"]
        for question in disputed:
            adjudicator.say(question, says(question), adjudicates=True)
        state = adjudicator.get(f"/api/samples/{quote(sample_id)}")
    if state["settled"] != state["items"]:
        raise RuntimeError(f"{state['settled']} of {state['items']} items are settled")
    seconds = sorted(second for person in people for second in person.seconds)
    return {
        "items": state["items"],
        "disputed": len(disputed),
        "agreement": round(state["agreement"], 4),
        "kappa": None if state["kappa"] is None else round(state["kappa"], 3),
        "median_ms_per_verdict": round(1000 * seconds[len(seconds) // 2], 1),
    }
