"""The private mechanism and the warm process that runs it.

``networks`` what a spec names, in torch and as passes; ``layers`` what book-keeping knows of any layer; ``sums``
patients' gradients, clipped and added, by several engines; ``rounds`` noise, steps, scores: what leaves;
``process`` the warm process and the service's side of it; ``attack`` the same code, attacked. The only room
that imports torch.
"""
