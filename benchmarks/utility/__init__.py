"""How well federated models predict at a given epsilon, on real public data.

``cases`` reads the tables, ``federation`` trains on them, ``settings`` says what is measured, ``charts`` draws it,
``real_path`` runs the heart case through the nodes' own training process, and ``fit`` is where the
constants of ``ledger.experiment.recipe`` come from. See ``__main__`` for the command.
"""
