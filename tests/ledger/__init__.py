"""Tests of the ledger: its formats against their specifications, its rules against their promises.

Published vectors are read from ``$CONSILIUM_SHARED/vectors``; without them those tests skip.
"""
