"""From pixels to a verdict: pure functions that training, calibration, export and the device share."""
