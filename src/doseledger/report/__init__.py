"""Pages and PDFs of runs, cohorts and comparisons."""
