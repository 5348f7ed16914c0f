"""The meeting point: it sequences what members sign, runs rounds and hands out blobs.

It decides nothing that others cannot check: the fold judges, hospitals witness, sums recompute.
"""
