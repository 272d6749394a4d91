"""The beginning of the configs that tests write: a catalog and MLflow's database, beside the config."""

DEMO_WORDS = """
[catalog]
path = "catalog"
dictionary = "schemas:attributes/demo.v1.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
"""

OWN_WORDS = DEMO_WORDS.replace("schemas:attributes/demo.v1.json", "attributes.json")
"""With the dictionary attributes.json, also beside the config."""
