"""DVH statistics and curves, from voxels and from contours."""
