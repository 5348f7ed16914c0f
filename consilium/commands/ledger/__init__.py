"""``consilium ledger``: the log itself, and what others take of it."""
