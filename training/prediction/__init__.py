"""Whole CTs through a network: files in, windows and slabs, rules, files out."""
