"""The pages for compliance officers, rendered on this machine from its own check.

Read-only; works without JavaScript.
"""
