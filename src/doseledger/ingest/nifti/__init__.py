"""NIfTI images and labels as cases."""
