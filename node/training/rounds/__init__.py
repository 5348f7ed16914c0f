"""A round at one dataset: the noise, the steps and the scores, and what leaves of them."""
