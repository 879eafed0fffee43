"""What INT8 costs: calibrating, and what the renderings lose and gain."""
