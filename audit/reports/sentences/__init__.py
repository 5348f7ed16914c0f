"""Entries in words: `tell.tell` says what one says, by subject in the modules beside it."""
