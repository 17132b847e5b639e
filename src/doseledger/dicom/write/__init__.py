"""DICOM objects written: volumes, structures, segmentations, plans, doses."""
