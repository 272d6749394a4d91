"""Versions of the model in MLflow: register, resolve, promote. Start at ``Registry`` in ``model_registry``."""
