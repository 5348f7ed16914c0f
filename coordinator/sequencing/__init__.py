"""The order of everything: group commit, signed checkpoints, cosignatures, long polls.

One thread owns the log; nothing is shown before it is durable.
"""
