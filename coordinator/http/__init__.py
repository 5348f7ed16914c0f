"""The door: requests, who may read what, read models, metrics.

Every body is bounded and typed before it is looked at.
"""
