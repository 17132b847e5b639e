"""Commands for what is kept: log, bundles, registry, runs, experiments."""
