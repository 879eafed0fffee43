"""Migrations of the hub's tables, run by `mentoring.database`."""
