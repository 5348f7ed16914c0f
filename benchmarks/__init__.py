"""Measurements, each re-runnable with one command.

They print a table and, as the last line, JSON. None of them is a test.
"""
