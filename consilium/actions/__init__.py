"""What the commands do, without how they print it.

Each action is one or a few signed entries, or a look at a copy.
"""
