"""The egress account: every byte that leaves a node of the demo, and what it is."""
