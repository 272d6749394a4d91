"""The extractor: finds the values of attributes without a closed list in a product's own text.

Candidates are places in title and description (:mod:`.places`): runs of words for texts, numbers with units for
numbers. A first ranking by their features alone keeps a few (:mod:`.ranking`); then a text encoder, which reads the
product's text once for all attributes, says which of them is the value, or that none is (:mod:`.network`).
"""
