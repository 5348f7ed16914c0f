"""The service process: its loop, its local pages for the hospital, settings, logs.

Outbound connections only; the local port is for this machine.
"""
