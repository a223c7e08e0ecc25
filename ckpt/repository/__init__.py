"""The repository: everything about a store that has meaning. Re-exports what users of the engine need."""
