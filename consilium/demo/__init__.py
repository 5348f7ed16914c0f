"""A whole federation on one machine.

Real processes and the same commands that people type.
"""
