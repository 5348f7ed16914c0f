"""Attacks on this node's own training code, over made-up or public rows and never over a hospital's.

``mechanism`` plays an experiment's rounds over given rows, ``canary`` runs them with and without one person (T2),
``one_run`` with many at once (T3), ``shadows`` trains whole twins of a released model (T4). The
statistics are in ``privacy.selfaudit``.
"""
