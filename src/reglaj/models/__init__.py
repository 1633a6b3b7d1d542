"""Floor 1: starters, loading, families, heads."""
