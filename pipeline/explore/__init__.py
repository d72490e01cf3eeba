"""`phantumor explore`: a local page to look through a dataset, or through the cases that a network was scored on."""
