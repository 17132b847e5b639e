"""A treatment machine, its dose, and the optimiser of its arcs."""
