"""A witness that belongs to no member: it follows a log from outside and cosigns what is consistent.

Its cosignature does not count in the federation's quorum; whoever trusts it names it in a policy file.
"""
