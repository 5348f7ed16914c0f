"""A hospital's side: its datasets, the private training on them, and what may leave.

Rows stay in this package. It knows ``ledger`` and ``privacy``; only what trains knows torch.
"""
