"""Predicted doses as DICOM, for the clinic."""
