"""What identifies a patient in DICOM: found, and removed."""
