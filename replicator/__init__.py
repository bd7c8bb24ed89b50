"""The replicator: moves revisions between two peers."""
