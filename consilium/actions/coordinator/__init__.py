"""The coordinator's keys and its lost database, for ``consilium coordinator``."""
