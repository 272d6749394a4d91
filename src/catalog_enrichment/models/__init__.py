"""The model: encoders, fusion, a head per attribute; the folder it is kept in; the predictor over it.

Read in this order: :mod:`spec` (what a model is), :mod:`fusion` and :mod:`network` (the mathematics),
:mod:`artifact` (how it is kept), :mod:`predictor` (how it is used).
"""
