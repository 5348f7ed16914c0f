"""What is next for each experiment, and the exact sums.

Deciding is pure; a restart begins where the log is.
"""
