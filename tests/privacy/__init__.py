"""Tests of the privacy package: known answers, properties, and exactness of the noise.

Reference numbers come from the papers cited in the package and from independent accountants.
"""
