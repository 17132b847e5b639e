"""What goes back to the clinic: predicted dose as DICOM."""
