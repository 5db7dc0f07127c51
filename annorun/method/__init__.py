"""One LightningModule a paper, and the classifier of the two-stage baselines."""
