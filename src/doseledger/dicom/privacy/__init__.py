"""Identifying attributes of DICOM: found, and removed."""
