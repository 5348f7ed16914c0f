"""The contribution report: what each hospital's updates added, at no privacy cost.

``report`` assembles it from ``rounds``, ``quality`` and ``shapley``; ``form`` is its shape.
"""
