"""Numbers: every figure the project states comes from a result file that a command here wrote."""
