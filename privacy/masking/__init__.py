"""Secure aggregation: the coordinator learns the sum of the hospitals' vectors and nothing else.

Pure: no network, no clock, no disk; randomness is handed in. Specification: PRIVACY 3.9, after
Bonawitz et al. (CCS 2017), with the consistency round of its active-adversary variant.
"""
