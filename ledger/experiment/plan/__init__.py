"""A plan in integers: compiled from a spec and its sites, and checked by whoever must rely on it.

Its model is part of the vocabulary: ``ledger.entries.operations.plans``.
"""
