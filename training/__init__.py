"""TORCH: source training, adaptation, retraining from answers, and their evaluation."""
