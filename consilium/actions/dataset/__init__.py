"""Registering a hospital's file, and all that is said of it later, for ``consilium dataset``."""
