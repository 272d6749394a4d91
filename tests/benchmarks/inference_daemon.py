"""Spark's daemon of Python workers, with mlflow's load_model kept per process and model. Run by Spark."""

from __future__ import annotations

import functools
import runpy

if __name__ == "__main__":
    import mlflow.pyfunc

    load = mlflow.pyfunc.load_model

    @functools.cache
    def load_once(uri: str) -> object:
        return load(uri)

    # the UDF passes model_config=None here
    mlflow.pyfunc.load_model = lambda uri, **_: load_once(str(uri))
    runpy.run_module("pyspark.daemon", run_name="__main__")
