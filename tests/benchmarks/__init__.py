"""The one format of every stated figure."""
