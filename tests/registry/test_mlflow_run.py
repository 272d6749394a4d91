"""MLflow runs while a training goes on and after it: name, source, live losses, duration, how it ended."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.operations import LineageConfig
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import mlflow_run
from catalog_enrichment.registry.mlflow_run import ComparisonRun, ModelRun
from catalog_enrichment.registry.mlflow_store import Store
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.trained_model import LONGEST, TrainedModel, model_card, shortened

from .tiny_version import MODEL, certificate, config_in


def steps(registry: Registry, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in registry.connect().get_metric_history(run_id, name)]


@pytest.fixture(autouse=True)
def _no_outer_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def test_a_training_is_seen_while_it_goes_on_and_lasts_as_long_as_it_took(
    registry: Registry, trained: TrainedModel
) -> None:
    client, before = registry.connect(), time.time()
    with registry.training_run("demo", "train_model") as run:
        run.epoch("image", {"epoch": 1, "train_loss": 3.0, "validation_loss": 2.5, "validation_loss/color": 1.5})
        run.epoch("image", {"epoch": 2, "train_loss": 2.0, "validation_loss": 2.0, "validation_loss/color": 1.0})
        for _ in range(2):  # two candidates for lambda of one epoch
            run.epoch("demo 0", {"epoch": 1, "train_loss": 1.0})
        now = client.get_run(run.run_id)
        assert now.info.status == "RUNNING"
        assert now.info.run_name.startswith("demo 20")
        assert (now.data.tags["recipe"], now.data.tags["mlflow.source.name"]) == ("demo", "train_model")
        assert now.data.tags["mlflow.source.type"] == "JOB"
        assert now.data.tags["mlflow.user"]
        assert steps(registry, run.run_id, "fit/image/validation_loss/color") == [(1, 1.5), (2, 1.0)]
        assert steps(registry, run.run_id, "fit/demo 0/train_loss") == [(1, 1.0), (2, 1.0)]
        time.sleep(1.1)
        version = registry.register(replace(trained, seconds={"fit": 12.5}), run)
    assert version.run_id == run.run_id
    ended = client.get_run(run.run_id)
    assert ended.info.status == "FINISHED"
    assert before * 1000 - 1000 <= ended.info.start_time <= ended.info.end_time - 1100
    assert ended.data.metrics["seconds/fit"] == 12.5
    assert steps(registry, run.run_id, "fit/train_loss") == [(1, 0.5)], "of the fit that was chosen"


@pytest.mark.parametrize(("problem", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_training_that_ends_with_an_error_says_so(
    registry: Registry, problem: type[BaseException], status: str
) -> None:
    with pytest.raises(problem), registry.training_run("demo", "train_model") as run:
        raise problem("too few products; https://me:hunter2@shop/x")
    ended = registry.connect().get_run(run.run_id)
    assert ended.info.status == status
    assert ended.data.tags["error"] == f"{problem.__name__}: too few products; https://***@shop/x"


def test_mlflow_gets_no_secret_of_the_config_from_errors_warnings_and_params(
    registry: Registry, trained: TrainedModel
) -> None:
    """In places where nothing else tells that they are secrets."""
    import mlflow

    url = "https://hooks.example/services/T000/B000/XXXX"
    spark = replace(registry.config.spark, conf={"spark.hadoop.fs.s3a.secret.key": "from-config"})
    config = replace(registry.config, spark=spark, lineage=LineageConfig(url=url))
    secret = "key from-config, url: /services/T000/B000/XXXX"
    run = Registry(config).training_run("demo", "train_model")
    Registry(config).register(replace(trained, params={"said": secret}, warnings=[secret]), run)
    with pytest.raises(ValueError, match="from-config"), run:
        raise ValueError(secret)
    data = registry.connect().get_run(run.run_id).data
    warnings = mlflow.artifacts.load_text(f"{registry.connect().get_run(run.run_id).info.artifact_uri}/warnings.txt")
    assert data.tags["error"] == "ValueError: key ***, url: /***"
    assert data.params["said"] == warnings == "key ***, url: /***"


def test_a_store_that_does_not_take_the_losses_does_not_stop_the_training(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = registry.connect()
    with registry.training_run("demo", "train_model") as run:
        client.delete_run(run.run_id)  # a run that was deleted takes no metrics
        monkeypatch.setattr(mlflow_run, "_PATIENCE_SECONDS", 3600)
        run.epoch("demo", {"train_loss": 3.0})
        client.restore_run(run.run_id)
        run.epoch("demo", {"train_loss": 2.0})
        assert steps(registry, run.run_id, "fit/demo/train_loss") == [], "it is not asked again at once"
    assert steps(registry, run.run_id, "fit/demo/train_loss") == [(1, 3.0), (2, 2.0)]
    assert capsys.readouterr().err.count("MLflow does not take the losses now, the training goes on") == 1


@pytest.mark.slow
def test_the_run_that_mlflow_run_made_is_the_trainings_run(
    registry: Registry, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = registry.connect()
    with registry.training_run("demo", "train_model") as first:
        pass
    project = {"mlflow.source.type": "PROJECT", "mlflow.source.name": "file:///shop#mlflow"}
    made = client.create_run(client.get_run(first.run_id).info.experiment_id, tags=project).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with registry.training_run("demo", "train_model") as run:
        registry.register(trained, run)
    assert run.run_id == made
    data = client.get_run(made).data
    assert data.tags["recipe"] == "demo"
    assert {name: data.tags[name] for name in project} == project

    with registry.training_run("demo", "train_model") as second:  # it has ended
        pass
    elsewhere = client.create_run(client.create_experiment("another")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", elsewhere)
    with registry.training_run("demo", "train_model") as third:
        pass
    assert len({made, elsewhere, second.run_id, third.run_id}) == 4


def test_a_version_describes_what_its_certificates_allow_and_has_an_example_that_it_scores(
    registry: Registry, trained: TrainedModel
) -> None:
    import mlflow

    version = registry.register(trained)
    text = registry.connect().get_model_version(MODEL, version.version).description
    assert registry.connect().get_run(version.run_id).data.tags["mlflow.note.content"] == text
    table = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    columns, rows = [cell.strip() for cell in table[0]], [[cell.strip() for cell in line] for line in table[2:]]
    by_path = {row[1]: dict(zip(columns, row, strict=True)) for row in rows}
    both = trained.certificates[0]
    assert by_path["with text and picture"] == {
        "attribute": "color", "products": "with text and picture", "numbers": "fp32-cpu", "threshold": "0.9000",
        "accepted": "400", "wrong": "8", "precision at least": "0.964", "written of the unlabelled": "40%",
        "status": "provisional", "valid until": f"{both.expires_at:%Y-%m-%d}",
    }  # fmt: skip
    assert by_path["without a usable picture"]["threshold"] == "nothing is written"
    assert "- color (products without a usable picture, fp32-cpu): text only is not certified yet" in text
    assert "Recipe `tiny`" in text

    model = mlflow.pyfunc.load_model(version.uri)
    example = model.input_example
    assert example["image"][0][:2] == b"\xff\xd8"
    assert example["image"][1] == b""
    assert example["category"][0] == both.categories[0]
    outputs = model.metadata.signature.outputs
    assert outputs.input_names() == ["color"]
    assert model.metadata.signature.inputs.required_input_names() == ["title"], "ours, not inferred from the example"
    answers = model.predict(example)
    assert [sorted(answer) for answer in answers["color"][0]] == [["decision", "reason", "score", "threshold", "value"]]
    assert answers["color"][0][0]["threshold"] == 0.9


def test_a_description_that_is_too_long_says_what_is_missing(trained: TrainedModel) -> None:
    certificates = [replace(known, attribute=f"a{n:03d}") for n in range(60) for known in trained.certificates]
    text = model_card(replace(trained, certificates=certificates))
    assert 4800 < len(text) <= LONGEST
    missing = int(text.splitlines()[-1].split()[0])
    everything = shortened(["x" * 10] * 10, longest=200)
    assert everything == "\n".join(["x" * 10] * 10)
    whole = 2 + 1 + 2 + len(certificates) + 2 + len(certificates) // 2
    assert len(text.splitlines()) - 2 + missing == whole
    assert text.splitlines()[-1].endswith("see certificates.json of the MLflow run.")


def test_a_value_that_has_the_tables_sign_does_not_break_it(trained: TrainedModel) -> None:
    broken = replace(certificate(Modality.BOTH, "w", 0.9), attribute="size|cm")
    text = model_card(replace(trained, certificates=[broken]))
    assert "| size/cm |" in text


@pytest.mark.slow
def test_a_comparison_lasts_from_its_start_and_its_models_as_long_as_their_fits(
    registry: Registry, tmp_path: Path
) -> None:
    store, started = Store(config_in(tmp_path)), datetime.now(UTC) - timedelta(hours=1)
    (tmp_path / "page.html").write_text("<p>")
    model: dict[str, Any] = {"params": {"sees": "both"}, "metrics": {"f1": 0.5}, "seconds": 90.0}
    parent = store.log_comparison(
        ComparisonRun(name="night", started_at=started, files=[tmp_path / "page.html"], about={"seeds": "1"}),
        [ModelRun(name="small", **model), ModelRun(name="large", **model)],
    )
    client = registry.connect()
    run = client.get_run(parent)
    assert run.info.run_name == "night"
    assert (run.info.status, run.data.tags["mlflow.source.name"]) == ("FINISHED", "compare_models")
    assert run.info.end_time - run.info.start_time >= 3_600_000
    children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
    recipes = {child.info.run_name: child.data.tags["recipe"] for child in children}
    assert recipes == {"small": "small", "large": "large"}
    assert all(90_000 <= child.info.end_time - child.info.start_time < 120_000 for child in children)
