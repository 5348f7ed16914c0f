"""``consilium audit``: verification, reports, the console, attacks."""
