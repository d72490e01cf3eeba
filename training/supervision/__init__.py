"""What a network may learn from a label that tells less than a mask: targets and their losses."""
