"""A hospital's tables: reading, encoding, snapshots, registration.

Everything here may see rows; nothing of it leaves but what ``training`` made private.
"""
