"""Seats, keys and cards, for ``consilium member``."""
