#!/bin/bash
# Starts a job, or on Kubernetes what Spark asks its containers for: "driver ..." and "executor ...", with the variables that
# Spark's resource manager sets (SPARK_DRIVER_*, SPARK_EXECUTOR_*, SPARK_JAVA_OPT_n). Anything else is run as it is.
set -eu
spark_home=$(python -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent)')
export SPARK_HOME=$spark_home

# SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1, ...: one option each
java_options=()
while IFS='=' read -r -d '' name value; do
  case $name in SPARK_JAVA_OPT_*) java_options+=("$value") ;; esac
done </proc/self/environ
classpath="${SPARK_CONF_DIR:-/opt/spark/conf}:$spark_home/jars/*${SPARK_EXTRA_CLASSPATH:+:$SPARK_EXTRA_CLASSPATH}"

case ${1:-} in
  driver)
    shift
    exec tini -s -- "$spark_home/bin/spark-submit" --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
      --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" --deploy-mode client "$@"
    ;;
  executor)
    exec tini -s -- java "${java_options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" -cp "$classpath" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
      --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
      --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
      --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
  *) exec tini -s -- "$@" ;;
esac
