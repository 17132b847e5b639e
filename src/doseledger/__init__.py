"""DICOM-RT to judged cases, dose models and reports, each traced to its origin."""
