"""One file per family of small models. The only home of model libraries."""
