"""How good: pure functions of predictions, posteriors and planted truth. numpy and scipy only."""
