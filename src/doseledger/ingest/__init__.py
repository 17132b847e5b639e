"""Raw DICOM, OpenKBP and splits: the road to checked cases."""
