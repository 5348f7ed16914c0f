"""The command line: a file for each group of commands, a folder for the larger ones.

Heavy imports happen inside the commands that need them.
"""
