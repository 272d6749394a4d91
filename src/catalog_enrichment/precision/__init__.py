"""How a value earns the right to be written: metrics, calibration, certificates, decisions. numpy and scipy only.

Read in this order: :mod:`units` (what is counted), :mod:`certify` (how a threshold is earned), :mod:`certificate`
(what it says), :mod:`decide` (what it allows).
"""
