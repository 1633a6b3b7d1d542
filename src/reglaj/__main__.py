"""`python -m reglaj` is `reglaj`."""

import sys

from reglaj.cli import main

if __name__ == "__main__":
    sys.exit(main())
