"""The warm training process: its frames, its self-test, and the service's side, which imports no torch."""
