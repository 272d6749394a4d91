"""The beginning of the configs that tests write: a catalog and MLflow's database, beside the config."""

WITH_DEMO_DICTIONARY = """
[catalog]
path = "catalog"
dictionary = "schemas:attributes/demo.v1.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
"""

WITH_OWN_DICTIONARY = WITH_DEMO_DICTIONARY.replace("schemas:attributes/demo.v1.json", "attributes.json")
"""The same with the dictionary attributes.json, also beside the config."""
