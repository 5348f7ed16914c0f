"""What leaves a copy: files, proofs, a witness, for ``consilium ledger``."""
