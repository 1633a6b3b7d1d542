"""Floor 0: errors, registries, configuration, files, seeds, runs, console. Imports nothing of ours."""
