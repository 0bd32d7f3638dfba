"""Benchmarks. Each compares things within one run on one machine and prints ratios; none is a test."""
