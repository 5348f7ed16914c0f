"""Durable copies of a log: store, blobs, verified replica, bundle.

Nothing in a store is believed because it is there.
"""
