"""Floor 4: step, loop, schedule, callbacks."""
