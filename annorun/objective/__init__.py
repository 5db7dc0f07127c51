"""Tensors to losses, differentiable. torch only."""
