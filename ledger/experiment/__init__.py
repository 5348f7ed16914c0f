"""An experiment in data: schema, spec, plan, updates and the exact average.

All that coordinator and auditor recompute without torch.
"""
