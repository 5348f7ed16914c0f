"""What entries amount to: admission, the fold and its rules, the state, a log in memory.

Pure, total and deterministic; the one path for sequencer, node and auditor.
"""
