"""``python -m consilium`` is the command ``consilium``."""

import sys

from consilium.cli import main

code = main()
# Where ctrl-C met code that is made of text (a dataclass, as a module is imported), CPython 3.11 under ``-m`` keeps
# in mind that it was not handled, and dies of SIGINT at its end whatever the exit code. Such code that ends well
# lets it forget.
exec("")  # noqa: S102 - a constant
sys.exit(code)
