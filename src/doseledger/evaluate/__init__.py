"""Floor 1: how good a dose is, by the measures that a clinic uses; arrays in, arrays out."""
