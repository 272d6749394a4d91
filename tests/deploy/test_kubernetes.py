"""The manifests against the schemas of Kubernetes that kubernetes-validate ships, and the Databricks job.

The Spark operator's own resource has no schema there: its pods' parts are checked as those of a pod, its keys by lists.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from catalog_enrichment.config import strict
from catalog_enrichment.config.schema import Config

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "kubernetes"
DOCUMENTS = [
    (file.stem, document) for file in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text())
]
PLAIN = [(name, one) for name, one in DOCUMENTS if "sparkoperator" not in one["apiVersion"]]
SCHEDULED = {name: one for name, one in DOCUMENTS if one["kind"] == "ScheduledSparkApplication"}
JOBS = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["scripts"]
VERSION = "1.33"

APPLICATION_KEYS = {
    *("type", "pythonVersion", "mode", "sparkVersion", "image", "imagePullPolicy", "mainApplicationFile", "arguments"),
    *("timeToLiveSeconds", "restartPolicy", "sparkConf", "volumes", "driver", "executor"),
}
"""Of v1beta2's SparkApplicationSpec, those used here; the operator drops a misspelled one without a word."""
POD_KEYS = {
    *("cores", "memory", "memoryOverhead", "serviceAccount", "envFrom", "podSecurityContext", "securityContext"),
    *("volumeMounts", "instances", "gpu", "nodeSelector", "tolerations"),
}
SCHEDULE_KEYS = {
    *("schedule", "timeZone", "concurrencyPolicy", "successfulRunHistoryLimit", "failedRunHistoryLimit", "template"),
}


@pytest.mark.parametrize(("name", "document"), PLAIN, ids=[f"{n}-{one['kind']}" for n, one in PLAIN])
def test_a_manifest_fits_the_schema_of_its_kind(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)
    assert document["metadata"].get("namespace", "catalog-enrichment") == "catalog-enrichment"


def test_the_check_notices_a_misspelled_key() -> None:
    policy = next(one for _, one in PLAIN if one["kind"] == "NetworkPolicy")
    wrong = policy | {"spec": policy["spec"] | {"ingres": []}}
    with pytest.raises(kubernetes_validate.ValidationError, match="ingres"):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("name", SCHEDULED)
def test_an_application_is_a_pod_that_the_restricted_standard_admits(name: str) -> None:
    spec = SCHEDULED[name]["spec"]
    template = spec["template"]
    assert set(spec) <= SCHEDULE_KEYS
    assert set(template) <= APPLICATION_KEYS
    assert spec["concurrencyPolicy"] == "Forbid"
    for part in (template["driver"], template["executor"]):
        assert set(part) <= POD_KEYS
        container = {"name": "spark", "image": template["image"]}
        container |= {key: part[key] for key in ("envFrom", "securityContext", "volumeMounts") if key in part}
        pod = {"containers": [container], "securityContext": part["podSecurityContext"], "volumes": template["volumes"]}
        pod |= {key: part[key] for key in ("nodeSelector", "tolerations") if key in part}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "spark"}, "spec": pod}
        kubernetes_validate.validate(document, VERSION, strict=True)
        assert part["podSecurityContext"]["runAsNonRoot"] is True
        assert part["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in part["volumeMounts"]} <= {volume["name"] for volume in template["volumes"]}
        assert "catalog" in {mount["name"] for mount in part["volumeMounts"]}


@pytest.mark.parametrize("name", SCHEDULED)
def test_an_application_names_what_the_other_manifests_make(name: str) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for _, one in PLAIN}
    template = SCHEDULED[name]["spec"]["template"]
    assert ("ServiceAccount", template["driver"]["serviceAccount"]) in made
    catalog, config = template["volumes"]
    assert ("PersistentVolumeClaim", catalog["persistentVolumeClaim"]["claimName"]) in made
    assert ("ConfigMap", config["configMap"]["name"]) in made
    assert ("Secret", template["driver"]["envFrom"][0]["secretRef"]["name"]) in made
    job = Path(template["mainApplicationFile"].removeprefix("local:///opt/catalog-enrichment/"))
    assert (DEPLOY.parent / job).is_file()


def test_of_the_gpu_application_each_executor_has_one_gpu_and_one_task() -> None:
    executor = SCHEDULED["enrich-gpu"]["spec"]["template"]["executor"]
    conf = SCHEDULED["enrich-gpu"]["spec"]["template"]["sparkConf"]
    assert executor["gpu"] == {"name": "nvidia.com/gpu", "quantity": 1}
    assert conf["spark.executor.resource.gpu.amount"] == conf["spark.task.resource.gpu.amount"] == "1"
    assert executor["cores"] == int(conf["spark.task.cpus"])
    script = conf["spark.executor.resource.gpu.discoveryScript"]
    assert (DEPLOY / "spark" / Path(script).name).is_file()
    assert not any("gpu" in key for key in SCHEDULED["enrich-cpu"]["spec"]["template"]["sparkConf"])


def test_the_config_map_is_a_config_and_the_secret_has_no_values() -> None:
    by_kind = {one["kind"]: one for _, one in PLAIN}
    content = tomllib.loads(by_kind["ConfigMap"]["data"]["config.toml"])
    config = strict.build(Config, content, "config.yaml")
    assert config.logs.format == "json"
    assert config.secrets() == frozenset()
    assert set(by_kind["Secret"]["stringData"].values()) == {""}


def test_the_databricks_job_runs_jobs_whose_exit_code_it_sees() -> None:
    job = json.loads((DEPLOY / "databricks" / "job.json").read_text())
    assert job["max_concurrent_runs"] == 1
    keys = [task["task_key"] for task in job["tasks"]]
    assert keys == ["import_products", "enrich_catalog"]
    assert set(keys) <= set(JOBS)
    (cluster,) = job["job_clusters"]
    conf = cluster["new_cluster"]["spark_conf"]
    assert conf["spark.task.resource.gpu.amount"] == "1"
    for task in job["tasks"]:
        # a wheel task would ignore what the job's main returns; the script passes it to sys.exit
        assert Path(task["spark_python_task"]["python_file"]).name == f"{task['task_key']}.py"
        assert task["job_cluster_key"] == cluster["job_cluster_key"]
