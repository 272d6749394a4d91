"""What changed for the catalog's readers since a position, as files, and the sinks that apply it."""
