"""How members reach the coordinator: signed requests, following the log, a member's home.

The only part of this package that opens a connection.
"""
