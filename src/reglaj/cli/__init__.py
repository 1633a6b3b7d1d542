"""Floor 8: the command line, thin: one file per verb.

This is what `reglaj --help` imports, so nothing here imports a heavy library (or a room that does) before a verb
runs: no torch, transformers, pydantic, pyarrow or numpy. A test holds it.
"""

from reglaj.cli.app import main

__all__ = ["main"]
