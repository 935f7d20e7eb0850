"""Dataset builders: one file a builder, each a pure function from trees to rows with provenance."""
