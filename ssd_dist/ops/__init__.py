"""The mathematics as plain functions on tensors, a whole batch at once."""
