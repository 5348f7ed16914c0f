"""``consilium federation``: founding one, looking at one, succeeding one."""
