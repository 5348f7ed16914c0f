"""Random schedules over the real budget code: can a cell ever release more than it was charged for?

``world.py`` interleaves eight experiments on one cell of patients with crashes, restored registers and
homes, and a coordinator that shows old prefixes of the log. ``python -m tests.schedules.run`` runs many.
"""
