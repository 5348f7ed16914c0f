"""The private mechanism and the warm process that runs it.

The only room that imports torch.
"""
