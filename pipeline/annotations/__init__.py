"""Annotations: what a reader would have drawn or written instead of a mask, derived exactly from a sample's label."""
