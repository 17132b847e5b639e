"""Cases, grids, plans, tables and settings: the nouns of every other room."""
