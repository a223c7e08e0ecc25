"""Benchmarks: real LangGraph runs, recorded once and replayed through two savers at the same time.

`python -m benchmarks --help` says how to run them, `docs/benchmarks.md` what is measured and how.

What is not here: bars that are judged by the stop-watch in the test suite. The tests run every workload in
miniature to keep this package alive and to check that both savers return the same state; the figures come
from a full run.
"""
