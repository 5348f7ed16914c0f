"""What the node may and must do now, decided from its own verified copy, and doing it.

Deciding is pure; refusals never depend on rows.
"""
