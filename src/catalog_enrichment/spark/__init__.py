"""How Spark is started, and the columns and frames that jobs share."""
