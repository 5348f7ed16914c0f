"""The steps, named ``r<revision>_<what>``; each follows on the one its ``down_revision`` names.

A released step is never edited: a change of the schema is a new one.
"""
