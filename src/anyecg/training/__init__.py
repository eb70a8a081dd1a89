"""From raw databases to a checkpoint: data sets, augmentation, the two stages of pre-training, and their evaluation."""
