"""Floor 1: reading, ledger, splits, batch plans."""
