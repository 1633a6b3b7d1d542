"""Floor 7: each job of the command line as one short linear story."""
