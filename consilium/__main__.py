"""``python -m consilium`` is the command ``consilium``."""

import sys

from consilium.cli import main

sys.exit(main())
