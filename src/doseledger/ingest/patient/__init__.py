"""One patient's DICOM-RT as a case."""
