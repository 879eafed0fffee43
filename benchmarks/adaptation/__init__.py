"""What adapting and mentoring gain: the experiments of the suite ``adaptation``, and their one protocol."""
