"""What a steward sees before saying yes, and what everybody watches, for ``consilium experiment``."""
