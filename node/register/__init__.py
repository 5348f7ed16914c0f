"""The node's private register: promises, reservations, intents, outbox.

Durable before data is touched or noise is used; it never leaves the hospital.
"""
