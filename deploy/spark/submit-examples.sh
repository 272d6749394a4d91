#!/bin/bash
# spark-submit on the usual clusters: submit-examples.sh WHERE CONFIG [JOB ARGUMENTS ...]; JOB is enrich_catalog by default.
# CONFIG must be readable by the driver at the same path. PRINT=1 only prints the command.
set -eu
where=${1:?WHERE: local, standalone, standalone-gpu, yarn or kubernetes} config=${2:?CONFIG: a TOML file}
shift 2
job=${JOB:-enrich_catalog} here=$(cd "$(dirname "$0")" && pwd)
script=$here/../../jobs/$job.py
case $where in
  # the driver is the executor: no GPU settings here, Spark would wait for them forever
  local) options=(--master "local[*]" --driver-memory 8g) ;;
  standalone) options=(--master "spark://${MASTER:-spark-master}:7077" --properties-file "$here/cpu.conf" --total-executor-cores "${CORES:-16}") ;;
  standalone-gpu) options=(--master "spark://${MASTER:-spark-master}:7077" --properties-file "$here/one-gpu.conf" --total-executor-cores "${CORES:-8}") ;;
  # client mode: the job's exit code and its JSON line are those of this command
  yarn) options=(--master yarn --deploy-mode client --properties-file "$here/cpu.conf" --num-executors "${EXECUTORS:-4}") ;;
  # client mode, from a pod or machine that has the catalog's volume at /var/lib/catalog-enrichment, as executor-pod.yaml gives it
  # to the executors
  kubernetes)
    options=(--master "k8s://https://${MASTER:-kubernetes.default.svc}:443" --deploy-mode client --properties-file "$here/cpu.conf"
      --conf "spark.kubernetes.container.image=${IMAGE:?IMAGE: the image of deploy/docker}"
      --conf "spark.kubernetes.namespace=${NAMESPACE:-catalog-enrichment}"
      --conf "spark.kubernetes.executor.podTemplateFile=$here/executor-pod.yaml"
      --conf "spark.executor.instances=${EXECUTORS:-4}")
    ;;
  *) echo "unknown: $where" >&2; exit 2 ;;
esac
command=(spark-submit "${options[@]}" "$script" --config "$config" "$@")
if [ -n "${PRINT:-}" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi
exec "${command[@]}"
