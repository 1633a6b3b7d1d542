"""Floor 4: metrics with intervals, baselines, reports. Pure functions of arrays; knows nothing of models."""
