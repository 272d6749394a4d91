"""Promotion through the gate, moves of the champion alias that exclude each other, and their history."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.errors import ConfigError, GateRefused, RegistryError, TemporaryFailure
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.records import Modality
from catalog_enrichment.registry.mlflow_store import Store
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.promotion import Promotion, PromotionRequest, describe, former_champions
from catalog_enrichment.registry.trained_model import TrainedModel

from ..clock import set_back
from ..lost_lock import WHY, lost_lock
from .tiny_version import MODEL, certificate, config_in


def test_promotion_is_refused_where_the_champion_is_not_the_expected_one(two_versions: Registry) -> None:
    Promotion(two_versions).promote("1", expected_current=None)
    with pytest.raises(GateRefused, match="version 1 now, expected was none"):
        Promotion(two_versions).promote("2", expected_current=None)
    Promotion(two_versions).promote("2", expected_current="1")
    assert two_versions.champion() == "2"
    tags = two_versions.connect().get_model_version(MODEL, "2").tags
    assert tags["previous_champion"] == "1"


def test_the_first_champion_has_no_predecessor_to_go_back_to(two_versions: Registry) -> None:
    Promotion(two_versions).promote("1", expected_current=None)
    with pytest.raises(RegistryError, match="cannot go back"):
        Promotion(two_versions).go_back()


def test_of_two_promotions_that_expect_the_same_champion_the_first_wins(two_versions: Registry, tmp_path: Path) -> None:
    start = threading.Barrier(2)

    def promote(version: str) -> str | None:
        other = Registry(config_in(tmp_path))
        other.connect()
        start.wait()
        try:
            Promotion(other).promote(version, expected_current=None)
        except GateRefused:
            return None
        return version

    with ThreadPoolExecutor(2) as threads:
        promoted = set(threads.map(promote, ("1", "2")))
    assert promoted == {None, two_versions.champion()}


def test_going_back_twice_restores_the_predecessors_predecessor(two_versions: Registry, tmp_path: Path) -> None:
    two_versions.connect().create_model_version(MODEL, source=str(tmp_path))
    for version, current in (("1", None), ("2", "1"), ("3", "2")):
        Promotion(two_versions).promote(version, expected_current=current)
    summary = Promotion(two_versions).go_back()
    assert (summary["model_version"], summary["champion_before"]) == ("2", "3")
    assert Promotion(two_versions).go_back()["model_version"] == two_versions.champion() == "1"


def test_a_promotion_while_another_process_holds_the_lock_is_refused(two_versions: Registry, tmp_path: Path) -> None:
    other = Registry(config_in(tmp_path, timeout_seconds=1))
    with (
        Store(config_in(tmp_path)).promoting(),
        pytest.raises(GateRefused, match="another process is promoting tiny"),
    ):
        Promotion(other).promote("1", expected_current=None)
    assert two_versions.champion() is None


def test_a_process_that_slept_past_its_lease_moves_no_alias(
    two_versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    Promotion(two_versions).promote("1", expected_current=None)
    Promotion(two_versions).promote("2", expected_current="1")
    monkeypatch.setattr(Store, "promoting", lost_lock)
    for act in (lambda: Promotion(two_versions).promote("1", expected_current="2"), Promotion(two_versions).go_back):
        with pytest.raises(TemporaryFailure, match=WHY):
            act()
    assert two_versions.champion() == "2"


def test_a_promotion_that_lost_its_lease_leaves_no_former_champion(
    two_versions: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate compares with former champions: a version that never served is none. Nor is the champion demoted."""
    two_versions.connect().create_model_version(MODEL, source=str(tmp_path))
    Promotion(two_versions).promote("1", expected_current=None)
    Promotion(two_versions).promote("2", expected_current="1")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "promoting", lost_lock)
        for act in (
            lambda: Promotion(two_versions).promote("3", expected_current="2"),
            Promotion(two_versions).go_back,
        ):
            with pytest.raises(TemporaryFailure, match=WHY):
                act()
    assert former(two_versions) == ["1", "2"]
    assert [event["version"] for event in Promotion(two_versions).history()] == ["1", "2"]
    Promotion(two_versions).promote("1", expected_current="2")
    assert (former(two_versions), two_versions.champion()) == (["1", "2"], "1")
    assert Promotion(two_versions).go_back()["model_version"] == "2"


@pytest.mark.parametrize("back", [False, True])
def test_what_a_killed_move_of_the_alias_has_not_written_the_next_move_writes(
    two_versions: Registry, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    promotion, moves = Promotion(two_versions), []
    promotion.promote("1", expected_current=None)
    if back:
        promotion.promote("2", expected_current="1")
    client = two_versions.connect()
    move = client.set_registered_model_alias

    def killed(*arguments: str) -> None:
        moves.append(move(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            promotion.go_back() if back else promotion.promote("2", "1", {"reasons": ["better"]})
    assert (len(moves), two_versions.champion()) == (1, "1" if back else "2")
    last = promotion.history()[-1]
    assert (last["version"], last["action"]) == (("1", "went_back") if back else ("2", "promoted"))
    if back:
        promotion.promote("2", expected_current="1")
        assert former(two_versions) == ["1", "2"]
    else:
        assert promotion.go_back()["model_version"] == "1"
        assert former(two_versions) == ["1"]
    history = promotion.history()
    assert last in history
    assert len(history) == (4 if back else 3)
    assert [event["champion_before"] for event in history] == ([None, "1", "2", "1"] if back else [None, "1", "2"])
    assert "moving_champion" not in client.get_model_version(MODEL, last["version"]).tags


def former(registry: Registry) -> list[str]:
    return sorted(former_champions(registry.versions()))


def test_former_champions_are_those_promoted_and_not_demoted_since(two_versions: Registry) -> None:
    assert former(two_versions) == []
    Promotion(two_versions).promote("1", expected_current=None)
    Promotion(two_versions).promote("2", expected_current="1")
    assert former(two_versions) == ["1", "2"]
    Promotion(two_versions).go_back()
    assert former(two_versions) == ["1"]
    Promotion(two_versions).promote("2", expected_current="1")
    assert former(two_versions) == ["1", "2"]


def test_promotions_keep_their_order_where_the_clock_is_set_back(
    two_versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    Promotion(two_versions).promote("1", expected_current=None)
    Promotion(two_versions).promote("2", expected_current="1")
    set_back(monkeypatch, days=1)
    Promotion(two_versions).go_back()
    assert former(two_versions) == ["1"]
    assert [event["action"] for event in Promotion(two_versions).history()] == ["promoted", "promoted", "went_back"]


# through the gate


def decisions(n: int, right: int, modality: Modality = Modality.BOTH) -> list[HeldOutDecision]:
    """Of n products, each its own group, the first ``right`` are written rightly."""
    return [
        HeldOutDecision(f"p{product}", product, "color", ("Red",), ("Red",) if product < right else (), modality)
        for product in range(n)
    ]


def test_promotion_through_the_gate_and_back(registry: Registry, trained: TrainedModel) -> None:
    registry.register(replace(trained, held_out=decisions(1000, 400)))
    assert Promotion(registry).through_gate(PromotionRequest(dry_run=True))["passed"]
    assert registry.champion() is None
    assert Promotion(registry).through_gate(PromotionRequest())["status"] == "promoted"
    assert registry.resolve().version == "1"
    assert Promotion(registry).through_gate(PromotionRequest())["status"] == "unchanged"

    registry.register(replace(trained, held_out=decisions(1000, 350)))
    with pytest.raises(
        GateRefused, match=r"color \(products with text and picture\): certified recall is more than"
    ) as refused:
        Promotion(registry).through_gate(PromotionRequest(override="we like it"))
    assert refused.value.summary["verdict"] == "refused"
    assert registry.champion() == "1"

    registry.register(replace(trained, held_out=decisions(1000, 410)))
    promoted = Promotion(registry).through_gate(PromotionRequest(override="not needed"))
    assert (promoted["champion_before"], promoted["verdict"], promoted["override"]) == ("1", "passed", None)
    assert Promotion(registry).go_back()["model_version"] == "1"
    assert Promotion(registry).through_gate(PromotionRequest(version="3", expected_current="1"))["model_version"] == "3"
    history, names = Promotion(registry).history(), ("version", "action", "champion_before")
    assert [tuple(event[name] for name in names) for event in history] == [
        ("1", "promoted", None), ("3", "promoted", "1"), ("1", "went_back", "3"), ("3", "promoted", "1"),
    ]  # fmt: skip
    [compared] = history[1]["comparisons"]
    assert (compared["version"], compared["units"], compared["difference"]) == ("1", 1000, 0.01)


def test_an_inconclusive_gate_needs_an_override_which_is_recorded(registry: Registry, trained: TrainedModel) -> None:
    registry.register(replace(trained, held_out=decisions(172, 80)))
    Promotion(registry).through_gate(PromotionRequest())
    registry.register(replace(trained, held_out=decisions(172, 75)))
    with pytest.raises(GateRefused, match="--override REASON") as refused:
        Promotion(registry).through_gate(PromotionRequest())
    summary = refused.value.summary
    assert (summary["verdict"], summary["passed"], summary["override"]) == ("inconclusive", False, None)
    assert summary["comparisons"][0]["units_needed"] > 172
    assert registry.champion() == "1"
    with pytest.raises(ConfigError, match="needs a reason"):
        PromotionRequest(override=" ")
    assert Promotion(registry).through_gate(PromotionRequest(override="the old model is slow"))["status"] == "promoted"
    event = Promotion(registry).history()[-1]
    assert (event["version"], event["verdict"], event["override"]) == ("2", "inconclusive", "the old model is slow")
    assert event["by"]
    assert "override: the old model is slow" in describe(event)
    assert f"{event['at'][:16].replace('T', ' ')} UTC  version 2 promoted after 1" in describe(event)


def test_the_candidate_is_also_compared_with_the_best_champion_ever(registry: Registry, trained: TrainedModel) -> None:
    """Small steps downwards, each within the margin, add up."""
    registry.register(replace(trained, held_out=decisions(1000, 500)))
    Promotion(registry).through_gate(PromotionRequest())
    registry.register(replace(trained, held_out=decisions(1000, 450)))
    Promotion(registry).promote("2", "1")
    registry.register(replace(trained, held_out=decisions(1000, 451)))
    with pytest.raises(GateRefused, match=r"that of version 1: 0\.451 against 0\.500"):
        Promotion(registry).through_gate(PromotionRequest())
    Promotion(registry).promote("1", "2")
    Promotion(registry).go_back()  # version 1 is demoted, so nothing has to be as good as it was
    assert registry.champion() == "2"
    assert [row["version"] for row in Promotion(registry).through_gate(PromotionRequest())["comparisons"]] == ["2"]


def test_a_model_can_be_compared_with_the_champions_before_it_is_registered(
    registry: Registry, trained: TrainedModel
) -> None:
    """By the gate's rule: worse by more than the margin of .02, with confidence."""
    empty = Promotion(registry).early_gate()
    assert (empty.worse("color", decisions(1000, 0)), empty.lost({})) == ("", "")  # the registry is empty
    registry.register(replace(trained, held_out=decisions(1000, 500)))
    registered = Promotion(registry).early_gate()
    assert (registered.worse("color", decisions(1000, 0)), registered.lost({})) == ("", "")  # there is no champion
    Promotion(registry).promote("1", None)
    check = Promotion(registry).early_gate().worse
    worse = check("color", decisions(1000, 451))
    assert worse.startswith(
        "At the choosing fold's threshold: color (products with text and picture): certified recall is more than "
        "recall_margin = 0.02 below that of version 1: "
    )
    assert "0.451 against 0.500 on 1000 test products" in worse
    assert check("color", decisions(1000, 475)) == ""  # inconclusive
    assert check("material", decisions(1000, 451)) == ""  # the champion is not certified for it
    assert check("color", decisions(0, 0)) == ""
    assert check("color", decisions(1000, 451, Modality.TEXT_ONLY)) == ""  # nor for products without a picture
    registry.register(replace(trained, held_out=decisions(1000, 450)))
    Promotion(registry).promote("2", "1")
    assert "below that of version 1" in Promotion(registry).early_gate().worse("color", decisions(1000, 451))


def test_a_candidate_loses_nothing_for_a_value_that_the_dictionary_does_not_list_any_more(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    others = [replace(row, true_values=("Blue",), written_values=("Blue",)) for row in decisions(1000, 0)]
    knows_red = [*decisions(300, 300), *others[300:]]
    registry.register(replace(trained, held_out=knows_red))
    Promotion(registry).promote("1", None)
    candidate = [*decisions(300, 0), *others[300:]]
    assert "0.700 against 1.000" in Promotion(registry).early_gate().worse("color", candidate)
    row = {"name": "color", "cardinality": "one", "values": ["Blue"]}
    (tmp_path / "words.json").write_text(json.dumps({"attributes": [row]}))
    assert Promotion(registry).early_gate().worse("color", candidate) == ""


def test_labels_that_the_champion_has_and_the_candidate_lacks_are_refused(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    from catalog_enrichment.models import version_files

    registry.register(replace(trained, held_out=decisions(1000, 400)))
    Promotion(registry).through_gate(PromotionRequest())
    folder = tmp_path / "fewer"
    shutil.copytree(trained.artifact, folder)
    model = json.loads((folder / "model.json").read_text())
    model["heads"]["color"]["labels"] = ["Blue"]
    (folder / "model.json").write_text(json.dumps(model))
    version_files.write_certificates(folder, version_files.read_certificates(folder))  # writes the sums of all files
    registry.register(replace(trained, artifact=folder, held_out=decisions(1000, 400)))
    with pytest.raises(GateRefused, match=r"cannot write \['Red'\]"):
        Promotion(registry).through_gate(PromotionRequest())


def test_what_a_model_cannot_write_is_known_before_its_certification_labels_are_used(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    registry.register(replace(trained, held_out=decisions(1000, 400)))
    Promotion(registry).promote("1", None)
    gate = Promotion(registry).early_gate()
    assert gate.lost({"color": ("Red", "Blue", "Green"), "size": ("S",)}) == ""
    assert gate.lost({"color": ("Red",)}) == "color: the candidate cannot write ['Blue'], the champion can"
    lost = "not certified for color (products with text and picture), which champion version 1 is certified for"
    assert gate.lost({"size": ("S",)}) == lost
    allowed = replace(gate, policy=replace(gate.policy, allow_lost_values=True, allow_lost_attributes=True))
    assert (allowed.lost({"color": ("Red",)}), allowed.lost({})) == ("", "")


def without_picture(trained: TrainedModel, folder: Path, right: int) -> TrainedModel:
    """A version that is certified on both paths; of 1,000 products without a picture it writes ``right`` rightly."""
    from catalog_enrichment.models import artifact, version_files

    shutil.copytree(trained.artifact, folder)
    weights = artifact.weights_hash(folder)
    version_files.write_certificates(folder, [certificate(path, weights, 0.9).to_dict() for path in Modality])
    pictures = [replace(row, product_id=f"with {row.product_id}") for row in decisions(1000, 400)]
    return replace(trained, artifact=folder, held_out=[*pictures, *decisions(1000, right, Modality.TEXT_ONLY)])


def test_the_path_without_a_picture_is_compared_by_itself(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    registry.register(without_picture(trained, tmp_path / "1", 500))
    promoted = Promotion(registry).through_gate(PromotionRequest())
    assert "color (products without a usable picture)" in promoted["reasons"][0]
    check = Promotion(registry).early_gate().worse
    assert "0.450 against 0.500 on 1000 test products" in check("color", decisions(1000, 450, Modality.TEXT_ONLY))
    registry.register(without_picture(trained, tmp_path / "2", 450))
    with pytest.raises(GateRefused, match=r"color \(products without a usable picture\): certified recall") as refused:
        Promotion(registry).through_gate(PromotionRequest())
    compared = [(row["modality"], row["units"], row["difference"]) for row in refused.value.summary["comparisons"]]
    assert compared == [("both", 1000, 0.0), ("text_only", 1000, -0.05)]
    registry.register(replace(trained, held_out=decisions(1000, 400)))
    with pytest.raises(GateRefused, match=r"not certified for color \(products without a usable picture\)"):
        Promotion(registry).through_gate(PromotionRequest())


def test_a_certificate_that_promises_less_than_the_config_is_refused(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    registry.register(trained)
    stricter = replace(config_in(tmp_path), precision=PrecisionConfig(target=0.97))
    with pytest.raises(
        GateRefused, match=r"a precision of 0\.95 with delta 0\.05; the config asks for precision\.target = 0\.97"
    ):
        Promotion(Registry(stricter)).through_gate(PromotionRequest())
    assert Promotion(registry).through_gate(PromotionRequest())["passed"]
