"""A lost or rolled-back database, filled again from members' copies.

Nothing is signed here. What comes back is what this log signed before, and nothing else fits.
"""
