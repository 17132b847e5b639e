"""The records: runs, reports, audit, registry, bundles."""
