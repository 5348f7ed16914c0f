"""Tests of ``audit``: verification, reports, the console.

They mirror the package, file by file.
"""
