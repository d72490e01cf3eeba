"""Ranges for one tumor kind in one organ: numbers with their sources."""
