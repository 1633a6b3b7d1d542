"""What judges data: near-duplicates and semantic duplicates, label errors, outliers, languages."""
