"""Patients' gradients, clipped and added: the engines, and how rows come to them.

``exact`` takes every patient's vector; ``dense`` and ``layerwise`` the networks of a spec, fast; ``bookkeeping``
and ``row_gradients`` any torch module. Nothing here but ``noisy_sum`` draws noise: no sum leaves as it is.
"""
