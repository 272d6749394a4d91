"""Metrics, certificates, decisions and the statistics of audits. numpy and scipy only.

How a certificate is made, in this order: :mod:`units` (what is counted), :mod:`pool` (which values take part),
:mod:`thresholds` (which thresholds are tested), :mod:`strata` (how products are weighted), :mod:`cluster` (the test of
one threshold), :mod:`certify` (all of it for one attribute), :mod:`certificate` (the result), :mod:`decide` (the
decision about a product's attribute).
"""
