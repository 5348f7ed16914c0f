"""Attacks: everything that the trust table in docs says somebody may try, tried.

One file per row of the table, over the honest federation of ``world.py``, which a test changes in a
line or two. Each test asserts who exposes the attack, with what evidence, and what stays trusted.
"""
