"""What reglaj is measured against, on the same work in one run: `python -m benchmarks --help`.

`works/` says what is done and by whom, `sides/` how each does it; `measuring` lets them take turns, `processes` runs
one alone for its peak memory and cold start, `limits` asks how fast the machine multiplies, `floors` holds what is
promised, and `results` keeps one JSON and one Markdown table. `quick` is the guard of CI, `profiling` shows where our
time goes. `reading`, `kills` and `checkpointing` are scripts of their own.
"""
