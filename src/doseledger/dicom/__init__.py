"""DICOM-RT to arrays on a Grid and back."""
