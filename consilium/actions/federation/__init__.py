"""Founding, leaving and succeeding, for ``consilium federation``."""
