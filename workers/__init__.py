"""Making shards at scale."""
