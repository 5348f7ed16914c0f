"""The mathematics of disclosure: mechanism events, the filters that judge them, noise, metrics.

Pure functions on numbers; knows no hospital, ledger or network and imports no torch.
Start with ``events`` (what happened), ``filters`` (may it happen), ``calibrate`` (what noise).
"""
