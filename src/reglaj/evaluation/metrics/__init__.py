"""Figures of merit: pure functions of arrays, one file per kind of task."""
