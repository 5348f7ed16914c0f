"""For whoever must check: verification of any copy of a ledger, reports on it, and the console.

It reads copies and writes none; `audit.verification.verify` is where to begin. Never a node or a coordinator.
"""
