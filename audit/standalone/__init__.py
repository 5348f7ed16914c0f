"""Checks that need nothing but a Python interpreter: for a sceptic who installs nothing of ours.

A script here imports the standard library alone and is handed out as a file, beside what it checks.
"""
