"""The closed loop of the audit (`make audit_loop`): its reviewers, its verdict, and, slow, the whole of it."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from audit_loop import problems, report
from audit_reviewers import NOISE, answer, judge, with_noise

from catalog_enrichment.audit.review_records import Answer, Item, ItemState
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config
from catalog_enrichment.records import Cardinality

from .audit.conftest import ATTRIBUTES
from .audit.review_samples import item, sample
from .audit.review_server import config_of, served

BENCHMARK = Path(__file__).parent / "benchmarks" / "audit.py"
KNOWN = {"color": ["Red", "Green", "Blue"], "material": ["Cotton", "Wool"]}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return config_of(tmp_path_factory.mktemp("loop") / "site", ATTRIBUTES)


def question(**changes: Any) -> dict[str, Any]:
    return {"product_id": "p1", "attribute": "color", "value": "Red", "cardinality": "one"} | changes


def test_reviewers_know_the_truth_and_say_the_right_value_where_there_is_one() -> None:
    truth = {("p1", "color"): frozenset({"Red"}), ("p1", "material"): frozenset({"Cotton", "Wool"})}
    assert answer(question(), truth) == ("yes",)
    assert answer(question(value="Blue"), truth) == ("other", "Red")
    material = question(attribute="material", cardinality="many")
    assert answer(material | {"value": "Wool"}, truth) == ("yes",)
    assert answer(material | {"value": "Silk"}, truth) == ("no",)
    assert answer(question(product_id="p2"), truth) == ("cannot_tell",)


def test_two_in_a_hundred_verdicts_are_the_opposite() -> None:
    chance = random.Random(1)
    answers = Counter(with_noise(("yes",), chance) for _ in range(20_000))
    assert set(answers) == {("yes",), ("no",)}
    assert answers["no",] / 20_000 == pytest.approx(NOISE, abs=0.004)
    wrong = {with_noise(("other", "Red"), chance) for _ in range(1000)}
    assert wrong == {("other", "Red"), ("yes",)}
    assert {with_noise(("cannot_tell",), chance) for _ in range(1000)} == {("cannot_tell",)}


def test_reviewers_judge_over_the_pages_interface_until_all_is_settled(config: Config, tmp_path: Path) -> None:
    items = [item(n, value=("Red", "Green", "Blue")[n % 3]) for n in range(24)]
    several = [item(n, attribute="material", cardinality=Cardinality.MANY, value="Silk") for n in range(3)]
    truth = {(question.product_id, "color"): frozenset({"Red"}) for question in items[:-1]}
    truth |= {(question.product_id, "material"): frozenset({"Wool", "Cotton"}) for question in several}
    truth[items[0].product_id, "color"] = frozenset({"Mauve"})
    with ReviewStore(tmp_path / "review.sqlite") as store:
        store.add_sample(sample(), [*items, *several])
        with served(config, store) as port:
            figures = judge(port, "s1", truth, {name: list(values) for name, values in KNOWN.items()})
        assert figures["items"] == 27
        outcomes = {outcome.item.item_id: outcome for outcome in store.outcomes("s1")}
        names = {verdict.reviewer for of_item in store.verdicts("s1").values() for verdict in of_item}
    assert {outcome.state for outcome in outcomes.values()} == {ItemState.SETTLED}
    assert names == {"Reviewer 1", "Reviewer 2"} | ({"Adjudicator"} if figures["disputed"] else set())

    def verdict(of: Item) -> tuple[Answer | None, tuple[str, ...]]:
        return outcomes[of.item_id].answer, outcomes[of.item_id].right_values

    assert verdict(items[0]) == (Answer.NO, ()), "the dictionary does not have the right value"
    assert verdict(items[1]) == (Answer.OTHER, ("Red",))
    assert verdict(items[3]) == (Answer.YES, ())
    assert verdict(items[-1]) == (Answer.CANNOT_TELL, ())
    assert verdict(several[0]) == (Answer.NO, ())


def closed() -> dict[str, Any]:
    """Figures of a loop that closed."""
    certificate = {
        "attribute": "color", "modality": "both", "certified": 0.98, "certified_lower": 0.955, "precision": 0.97,
        "lower": 0.93, "upper": 0.99, "rows": 260,
    }  # fmt: skip
    review = {"items": 260, "disputed": 9}
    honest = {
        "review": review, "true": {"color": {"precision": 0.972, "values": 900}}, "certificates": [certificate],
        "alarms": {"color": {"wealth": 0.01, "wrong": 5, "verdicts": 200}}, "paused": [], "confirmed": 0,
        "human_sets": 3, "exit_code": 0,
    }  # fmt: skip
    bad = honest | {
        "version": "2", "gate": {"exit_code": 3, "message": "inconclusive"},
        "true": {"color": {"precision": 0.8, "values": 1500}}, "paused": ["attribute color"], "certificates": [],
        "drifted": ["color both/en/Apparel is paused: accept rate 90% instead of 70%"],
    }  # fmt: skip
    again = {"exit_code": 0, "attributes": ["color"], "certificates": [], "message": None}
    after = {"color": {"precision": 0.96, "values": 700}}
    seconds = {"a": 1.0}
    return {"honest": honest, "over_confident": bad, "recertified": again, "drifted_after": [], "true_after": after,
            "seconds": seconds}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("honest", "paused"), ["attribute color"], "the honest version raised an alarm"),
        (("honest", "certificates"), [], "nothing that could be audited"),
        (("honest", "certificates", 0, "upper"), 0.95, "below the certificate's lower bound"),
        (("honest", "certificates", 0, "lower"), 0.98, "misses the true precision"),
        (("over_confident", "true", "color", "precision"), 0.94, "not wrong enough"),
        (("over_confident", "paused"), [], "the audit did not catch ['color']"),
        (("drifted_after",), ["color both/en/Apparel is paused: accept rate 28% instead of 46%"], "its own stratum"),
        (("true_after", "color", "precision"), 0.9, "certified again and its true precision is 0.9"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(where: tuple[Any, ...], value: Any, says: str) -> None:
    result = copy.deepcopy(closed())
    assert problems(result) == []
    part: Any = result
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    assert any(says in problem for problem in problems(result))
    assert "color" in report(result)


def test_where_neither_drift_nor_audit_sees_it_both_are_named() -> None:
    result = closed()
    result["over_confident"] |= {"paused": [], "drifted": []}
    assert problems(result)[0] == "neither drift check nor audit caught ['color']"


@pytest.mark.slow
def test_the_loop_closes_on_a_generated_marketplace(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--loop", "--runs", "0", "--folder", str(tmp_path / "loop")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["problems"] == []
    honest, bad = result["honest"], result["over_confident"]
    assert honest["exit_code"] == 0
    assert honest["human_sets"] > 0, "corrections became human values"
    assert bad["exit_code"] == 3
    assert bad["drifted"]
    assert "attribute color" in bad["paused"]
    assert bad["true"]["color"]["precision"] < honest["true"]["color"]["precision"]
