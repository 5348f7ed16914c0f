"""Tests, one folder per package; a test name is the sentence it proves.

Hypothesis and real objects; fakes only for the clock and the network.
"""
