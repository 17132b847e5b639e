"""Data sets of arrays: contracts, statistics, comparison."""
