"""Precision: metrics, calibration, certificates, decisions. numpy and scipy only.

Read in this order: :mod:`units` (what is counted), :mod:`certify` (how a threshold is tested), :mod:`certificate` (the
result of the test), :mod:`decide` (the decision about each product and attribute).
"""
