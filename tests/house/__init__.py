"""The house: packaging, layers, docs and deploy files keep their promises."""
