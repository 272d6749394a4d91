"""Precision: metrics, calibration, certificates, decisions. numpy and scipy only.

Read in this order: :mod:`units` (what is counted), :mod:`pool` (which values take part), :mod:`grid` (which thresholds
are tested), :mod:`strata` (how products are weighted), :mod:`cluster` (the test of one threshold), :mod:`certify` (all
of it for one attribute), :mod:`certificate` (the result), :mod:`decide` (the decision about a product's attribute).
"""
