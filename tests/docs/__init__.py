"""Documentation that the suite keeps true: formats, vocabularies, fields, commands and links.

Each test compares both ways: nothing in the code is undocumented, and nothing documented is gone.
"""
