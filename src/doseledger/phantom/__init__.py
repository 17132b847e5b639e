"""Synthetic patients, planned and written as DICOM-RT."""
