"""Consuming shards: stream, train, predict, evaluate."""
