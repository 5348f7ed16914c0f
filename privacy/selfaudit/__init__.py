"""Checking ourselves: does what leaves behave as the proof assumes? Statistics only; knows nobody.

``residuals`` looks at noise that was drawn (T1), ``known_answers`` at the accountant and the
generator (T0), ``attack`` at membership inference (T4). None of them is ever run on patients' rows.
"""
