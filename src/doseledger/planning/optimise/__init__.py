"""Direct aperture optimisation of full arcs."""
