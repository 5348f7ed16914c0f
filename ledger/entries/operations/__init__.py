"""Operations by subject, and the vocabulary that lists them all: ``vocabulary.Operation``.

Data alone: what an operation looks like, never what it does.
"""
