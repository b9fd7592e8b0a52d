"""How homes of older versions are brought up to date, one file for each version of the schema."""
