"""Following the log and witnessing it.

A cosignature leaves only after what it says is durable here.
"""
