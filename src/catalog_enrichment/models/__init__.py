"""Models: encoders, fusion, a head per attribute; their storage in a folder; the predictor.

Read in this order: :mod:`spec` and :mod:`recipe_files` (the definition of a model), :mod:`fusion` and :mod:`network`
(the mathematics), :mod:`artifact` (storage), :mod:`predictor` (use).
"""
