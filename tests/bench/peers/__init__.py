"""What users would pick instead of kosine, measured beside it: same rows, same queries, same load, in turn.

Not tests: nothing here passes or fails. `make bench-peers` runs it and writes docs/benchmarks.md.
"""
