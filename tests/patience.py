"""How long a test waits for what surely comes: long enough for a machine that has much else to do.

No test asserts that something is fast; it fails sooner than this only where something is wrong.
"""

PATIENCE_S = 90.0
