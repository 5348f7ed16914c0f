"""What all parties must agree on: identities, entries, operations, the log and its proofs.

Everything here is the same code for coordinator, node and auditor; it knows ``privacy`` alone.
"""
