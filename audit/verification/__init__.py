"""Verifying a copy: sources, the replay, fourteen numbered steps, findings.

Reads only; a copy is never changed by looking at it.
"""
