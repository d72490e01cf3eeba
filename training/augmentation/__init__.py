"""What `training.augment` is made of: what is drawn for a sample, and how a batch is changed."""
