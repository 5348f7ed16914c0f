"""Short forms of what a ledger says, as tables show them and ``--json`` prints them.

Numbers are in people's units: epsilon, patients, ISO times; what an entry holds exactly is in
``consilium ledger show``.
"""
