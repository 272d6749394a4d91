"""Whether two values are the same, by the kind of their attribute: reading, converting and printing values."""
