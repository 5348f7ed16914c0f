"""Tests of the front door.

The command line, settings, the client, rehearsal, the demo; most call ``main`` in this process.
"""
