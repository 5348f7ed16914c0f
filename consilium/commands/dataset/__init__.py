"""``consilium dataset``: a hospital's data, and what is said of it."""
