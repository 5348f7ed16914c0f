"""What the commands do, without how they print it: a folder for each group of ``consilium.commands``.

Each action is one or a few signed entries, or a look at a copy. Beside the folders lies what all of them
begin with: a member's home, a log to read, an entry to say, a file that a person names.
"""
