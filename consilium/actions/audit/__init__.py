"""Verification, reports and attacks, for ``consilium audit``."""
