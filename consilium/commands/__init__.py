"""The command line, a file per group.

Heavy imports happen inside the commands that need them.
"""
