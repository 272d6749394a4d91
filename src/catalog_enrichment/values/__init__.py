"""Values by the kind of their attribute: how they are read, converted, compared and printed."""
