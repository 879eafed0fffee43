"""How good is it: labelled pictures, measures and gates, one definition for station and workstation."""
