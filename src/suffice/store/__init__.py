"""Everything that lasts: one schema, records, tasks, releases, the ledger. SQLite in the home by default."""
