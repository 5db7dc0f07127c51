"""Votes to posteriors, without gradients. numpy and scipy only."""
