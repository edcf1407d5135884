"""Training and the saved model."""
