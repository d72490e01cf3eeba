"""Annotations in the formats that other tools read; see docs/label-kinds.md."""
