"""Bytes of the field and of ours: strict JSON, keys, trees, notes, proofs, tiles, documents.

Pure: bytes in, typed values or a typed refusal out. No clock, no network, no database.
"""
