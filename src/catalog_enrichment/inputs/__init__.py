"""What a product brings, made fit for a model: clean text, token ids, decoded pictures."""
