"""The manifests against the schemas of Kubernetes that kubernetes-validate ships, and the Databricks job.

The Spark operator's own resource has no schema there: its pods' parts are checked as those of a pod, its keys by lists.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

from catalog_enrichment.config import strict
from catalog_enrichment.config.schema import Config
from catalog_enrichment.spark import connecting

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "kubernetes"
DOCUMENTS = [
    (file.stem, document) for file in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text())
]
PLAIN = [(name, manifest) for name, manifest in DOCUMENTS if "sparkoperator" not in manifest["apiVersion"]]
SCHEDULED = {name: manifest for name, manifest in DOCUMENTS if manifest["kind"] == "ScheduledSparkApplication"}
JOBS = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["scripts"]
VERSION = "1.33"
README = (FOLDER / "README.md").read_text()
SECRET = "catalog-enrichment"

APPLICATION_KEYS = {
    *("type", "pythonVersion", "mode", "sparkVersion", "image", "imagePullPolicy", "mainApplicationFile", "arguments"),
    *("timeToLiveSeconds", "restartPolicy", "sparkConf", "volumes", "driver", "executor"),
}
"""The keys of v1beta2's SparkApplicationSpec that are used here: the operator drops a misspelled key silently."""
POD_KEYS = {
    *("cores", "memory", "memoryOverhead", "serviceAccount", "envFrom", "podSecurityContext", "securityContext"),
    *("volumeMounts", "instances", "gpu", "nodeSelector", "tolerations"),
}
SCHEDULE_KEYS = {
    *("schedule", "timeZone", "concurrencyPolicy", "successfulRunHistoryLimit", "failedRunHistoryLimit", "template"),
}


@pytest.mark.parametrize(("name", "document"), PLAIN, ids=[f"{n}-{document['kind']}" for n, document in PLAIN])
def test_a_manifest_fits_the_schema_of_its_kind(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)
    assert document["metadata"].get("namespace", "catalog-enrichment") == "catalog-enrichment"


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
    made = {(manifest["kind"], manifest["metadata"]["name"]) for _, manifest in PLAIN}
    template = SCHEDULED[name]["spec"]["template"]
    assert ("ServiceAccount", template["driver"]["serviceAccount"]) in made
    catalog, config = template["volumes"]
    assert ("PersistentVolumeClaim", catalog["persistentVolumeClaim"]["claimName"]) in made
    assert ("ConfigMap", config["configMap"]["name"]) in made
    assert template["driver"]["envFrom"] == [{"secretRef": {"name": SECRET}}]
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


def test_the_night_imports_before_it_enriches() -> None:
    started = {
        name: [int(n) for n in application["spec"]["schedule"].split()[:2]] for name, application in SCHEDULED.items()
    }
    minutes = {name: hour * 60 + minute for name, (minute, hour) in started.items()}
    assert minutes["import-products"] + 60 <= minutes["enrich-cpu"] == minutes["enrich-gpu"]
    scripts = {Path(application["spec"]["template"]["mainApplicationFile"]).name for application in SCHEDULED.values()}
    assert scripts == {"import_products.py", "enrich_catalog.py"}


def test_the_readmes_commands_make_what_the_manifests_need() -> None:
    """In particular no manifest has the secret: each later `apply` would put empty values in."""
    commands = re.findall(r"^    (\w.*)$", README.replace("\\\n", " "), re.MULTILINE)
    applied = {Path(file).stem for command in commands for file in re.findall(r"-f (\S+\.yaml)", command)}
    assert applied | {"enrich-gpu"} == {name for name, _ in DOCUMENTS}
    assert [name for name, manifest in DOCUMENTS if manifest["kind"] == "Secret"] == []
    (secret,) = [command for command in commands if "create secret" in command]
    assert f"generic {SECRET} --from-env-file" in secret
    assert "kubectl apply -f -" in secret, "the command can be repeated"
    namespace = next(manifest for _, manifest in PLAIN if manifest["kind"] == "Namespace")["metadata"]["name"]
    assert any(f"--set 'spark.jobNamespaces={{{namespace}}}'" in command for command in commands)


def test_spark_submits_executors_are_admitted_and_have_the_catalog() -> None:
    """By the same context and volume as those of the operator."""
    pod = yaml.safe_load((DEPLOY / "spark" / "executor-pod.yaml").read_text())
    (container,) = pod["spec"]["containers"]
    complete = pod | {"metadata": {"name": "x"}, "spec": pod["spec"] | {"containers": [container | {"image": "x"}]}}
    kubernetes_validate.validate(complete, VERSION, strict=True)
    template = SCHEDULED["enrich-cpu"]["spec"]["template"]
    assert pod["spec"]["securityContext"] == template["executor"]["podSecurityContext"]
    assert container["securityContext"] == template["executor"]["securityContext"]
    assert container["volumeMounts"] == template["executor"]["volumeMounts"]
    assert pod["spec"]["volumes"] == template["volumes"][:1]


def test_the_config_map_is_a_config_with_a_feed_and_without_secrets() -> None:
    by_kind = {manifest["kind"]: manifest for _, manifest in PLAIN}
    content = tomllib.loads(by_kind["ConfigMap"]["data"]["config.toml"])
    config = strict.build(Config, content, "config.yaml")
    assert config.logs.format == "json"
    assert config.secrets() == frozenset()
    assert config.source is not None
    mount = SCHEDULED["import-products"]["spec"]["template"]["executor"]["volumeMounts"][0]["mountPath"]
    assert config.path(config.source.path).is_relative_to(mount)


@pytest.mark.parametrize("name", ["job.json", "serverless.json"])
def test_the_databricks_jobs_have_the_fields_of_the_jobs_api(name: str) -> None:
    """The SDK's types drop fields that the API does not have."""
    from databricks.sdk.service.jobs import JobSettings

    job = json.loads((DEPLOY / "databricks" / name).read_text())
    assert JobSettings.from_dict(job | {"no_such_field": 1}).as_dict() == job


def test_the_serverless_job_uses_the_session_and_the_environment_of_the_platform() -> None:
    job = json.loads((DEPLOY / "databricks" / "serverless.json").read_text())
    (environment,) = job["environments"]
    for task in job["tasks"]:
        assert task["environment_key"] == environment["environment_key"]
        assert "job_cluster_key" not in task
        script = task["spark_python_task"]
        assert Path(script["python_file"]).name == f"{task['task_key']}.py"
        name, value = script["parameters"][-1].split("=")
        assert (name, json.loads(value)) == ("spark.remote", connecting.PLATFORM)


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
        (library,) = task["libraries"]
        assert Path(library["requirements"]).name == "requirements.txt"
    lines = (DEPLOY / "databricks" / "requirements.txt").read_text().splitlines()
    (installed,) = (Requirement(line) for line in lines if not line.startswith("#"))
    assert installed.extras == {"jobs"}, "the cluster has its own Spark"
