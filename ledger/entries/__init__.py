"""What is said: the vocabulary, signed entries, the pen that signs them, invitations, cards.

An entry is the only message that changes anything; what it amounts to is for ``ledger.rules``.
"""
