"""Data use, budgets, contributions: figures with their method, limits and checkpoint.

Everything is computed from a verified copy.
"""
