"""Model inputs from raw product data: clean text, token ids, decoded pictures."""
