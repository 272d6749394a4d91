"""Configuration: the dataclasses of every section, and the strict parser that builds them from TOML or JSON."""
